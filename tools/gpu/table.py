"""The results file as Markdown: outcomes and ratios. Above 1, ours is faster."""
import math
import re
import statistics

from gpu import results

# Our precision: those of cuDNN with the same width, to compare with.
WIDTHS = {"bf16": ("bf16", "fp16"), "tf32": ("tf32",), "f32": ("f32",)}
# The columns that identify a measurement of lstm_vs_cudnn.
KEYS = ("H", "B", "T", "pass", "library", "algorithm", "dtype", "launch", "layout")


def markdown(found):
    """All tables that a results file has figures for."""
    parts = found["parts"]
    sections = [heading(found)]
    for name, section in (("cudnn", cudnn), ("pytorch", pytorch_lstm), (None, training),
                          ("ceilings", ceilings), ("bench", kernels)):
        if name is None or figures(parts, name):
            sections += section(parts)
    return "\n\n".join(section for section in sections if section)


def figures(parts, name):
    return parts.get(name, {}).get("figures", {})


def table(head, rows):
    """A Markdown table; all columns but the first are aligned right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def ratio(value):
    return "–" if value is None else f"{value:.2f}"


def mean_and_least(ratios):
    if not ratios:
        return "nothing to compare"
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    return f"geometric mean {mean:.2f}, least {min(ratios):.2f}"


def heading(found):
    title = f"{found['gpu']}, driver {found['driver']}, commit {found['commit']}, {found['date']}"
    lines = [f"* {results.sentence(name, record)}" for name, record in found["parts"].items()]
    failed = [f"  * {part}: {case}" for part, record in found["parts"].items()
              if isinstance(record.get("failed"), dict) for case in record["failed"]]
    return "\n".join([f"**{title}**", "", *lines, *failed])


def cudnn(parts):
    """For each precision and pass, a matrix of H by B."""
    lines = {}  # where one comes twice, the last counts
    for case in figures(parts, "cudnn").values():
        for row in case["rows"]:
            line = dict(zip(case["columns"], row))
            lines[tuple(line.get(word) for word in KEYS)] = line
    sections = []
    for ours, theirs in WIDTHS.items():
        for kind in ("forward", "train"):
            fastest = {}  # (library, H, B): milliseconds
            for line in lines.values():
                if line["pass"] != kind or line["status"] != "ok" or line["dtype"] not in theirs:
                    continue
                key = line["library"], line["H"], line["B"]
                fastest[key] = min(line["median_ms"], fastest.get(key, math.inf))
            cells = {(h, b): fastest["cudnn", h, b] / fastest["carousel", h, b]
                     for library, h, b in fastest
                     if library == "carousel" and ("cudnn", h, b) in fastest}
            if not cells:
                continue
            widths, batches = (sorted({cell[i] for cell in cells}) for i in (0, 1))
            sections.append(
                f"LSTM, {kind}, {ours}: the fastest of cuDNN ({', '.join(theirs)}) over ours, by "
                f"width H and batch B; {mean_and_least(cells.values())}\n\n" +
                table(["H \\ B", *batches],
                      [[h, *(ratio(cells.get((h, b))) for b in batches)] for h in widths]))
    return sections


def pytorch_lstm(parts):
    """Time of torch.nn.LSTM over ours, by shape."""
    cells = {}
    for case, lines in figures(parts, "pytorch").items():
        if not case.startswith("nn.LSTM/"):
            continue
        for name, line in lines.items():
            kind, shape = name.split()
            if line["pytorch ms"]:
                cells.setdefault((shape, f"{case.split('/')[1]} {kind}"), []).append(
                    line["pytorch ms"] / line["carousel ms"])
    cells = {key: statistics.median(rounds) for key, rounds in cells.items()}
    if not cells:
        return []
    shapes = list(dict.fromkeys(shape for shape, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    return [f"One layer: torch.nn.LSTM over ours; {mean_and_least(cells.values())}\n\n" +
            table(["T, B, I, H", *columns],
                  [[shape.replace(",", ", "), *(ratio(cells.get((shape, c))) for c in columns)]
                   for shape in shapes])]


def training(parts):
    """Tokens per second by model and precision: as CUDA graphs, eagerly, and in PyTorch."""
    runs = figures(parts, "tokens")
    peers = {case: line for case, line in figures(parts, "pytorch").items()
             if not case.startswith("nn.LSTM/")}
    rows = []
    for case in dict.fromkeys([name.rpartition("/")[0] for name in runs] + list(peers)):
        model, precision = case.split("/")
        graph, eager = (runs.get(f"{case}/{way}", {}).get("tokens/s") for way in ("graph", "eager"))
        peer = peers.get(case)
        rows.append([
            f"{model}, {precision}", count(graph), count(eager),
            ratio(graph / eager if graph and eager else None),
            f"{count(peer['pytorch'])} ({peer['way']})" if peer else "–",
            ratio(statistics.median(peer["ratios"]) if peer else None)])
    if not rows:
        return []
    return ["Training, tokens per second: a step as a CUDA graph, kernel by kernel, and PyTorch's "
            "fastest way\n\n" +
            table(["LSTM layers", "graph", "eager", "graph / eager", "PyTorch", "ours / PyTorch"],
                  rows)]


def count(value):
    return "–" if value is None else f"{value / 1e3:,.0f}k" if value >= 1e4 else f"{value:,.0f}"


def ceilings(parts):
    rows = []
    for case, line in figures(parts, "ceilings").items():
        unit, rate = next(item for item in line.items() if item[0].endswith("/s"))
        name = f"`{case.replace('/cuda:1', '').replace('/real_time', '')}`"
        if unit == "million/s":  # of launches or of barriers: as one's time
            rows.append([name, f"{1 / rate:.3g} µs"])
        else:
            rows.append([name, f"{rate:,.0f} {unit}"])
    return ["The machine's ceilings\n\n" + table(["", "at best"], rows)]


def kernels(parts):
    """Each op's share of its ceiling, over its cases."""
    best = {}
    for case, line in figures(parts, "ceilings").items():
        if case.startswith("copy_ceiling"):
            best["copy"] = line["GB/s"]
        elif product := re.match(r"product_ceiling<GemmType::(\w+)>", case):
            best[f"{product[1]} product"] = line["GFLOP/s"]
    shares = {}
    for case, line in figures(parts, "bench").items():
        if "GB/s" in line:
            ceiling, rate = "copy", line["GB/s"]
        elif "GFLOP/s" in line or "FLOP/s" in line:
            kind = "bf16" if "bf16" in case else "tf32" if "<float, true>" in case else "f32"
            ceiling, rate = f"{kind} product", line.get("GFLOP/s") or line["FLOP/s"] / 1e9
        else:
            continue
        if ceiling in best:
            op = re.split(r"/cuda:1|/[A-Z]:\d", case)[0]
            shares.setdefault((op, ceiling), []).append(rate / best[ceiling])
    if not shares:
        return []
    return ["Kernels: share of the machine's ceiling (sizes that fit into its cache may exceed the "
            "ceiling of a copy)\n\n" +
            table(["op", "ceiling", "cases", "least", "largest"],
                  [[f"`{op}`", ceiling, len(values), ratio(min(values)), ratio(max(values))]
                   for (op, ceiling), values in shares.items()])]
