#!/usr/bin/env python3
"""Measures Carousel and PyTorch in turn on this machine's CPU, and makes README's tables of it.

    cpu_table.py CAROUSEL [--python build/torch/bin/python] [--rows ROW,ROW...] [--rounds 3]
    cpu_table.py --readme     writes the tables of the results that are there into README.md

CAROUSEL is the driver binary, with carousel_bench beside it; --python needs torch (tests/golden/setup
makes one) and a C++ compiler for torch.compile. A row is a model of language. PyTorch is tried in many
ways for a second each (pytorch_lm.py lists them), and its fastest in f32 and its fastest in bf16 are
measured in rounds: the machine's ceilings, Carousel in f32 and in bf16, PyTorch in f32 and in bf16.

Results go to tests/bench/results/<cpu>.json, row by row, so that an interrupted run keeps what it
has; rows that are measured again replace the old ones. Texts are made up.
"""

import argparse
import datetime
import itertools
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from compare_lm import Comparison, Generation

from gpu.results import to_text
from gpu.table import ratio, table

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = ROOT / "tests/bench/results"
BEGIN, END = "<!-- made by tests/bench/peers/cpu_table.py --readme -->", "<!-- until here -->"
GATES = {"lstm": 4, "gru": 3, "tanh": 1}
NAMES = {"lstm": "LSTM", "gru": "GRU", "tanh": "tanh RNN"}
CEILINGS = {"f32 GFLOP/s": r"product<float>/cuda:0/m:(2048|700)/.*/form:0/real_time",
            "bf16 GFLOP/s": r"product<bf16>/cuda:0/m:(2048|700)/.*/form:0/real_time",
            "copy GB/s": r"copy<float, float>/cuda:0/n:51463168/real_time"}


class Row(NamedTuple):
    """A model and its batches."""
    cell: str
    embed: int
    layers: int
    hidden: int
    vocabulary: int
    batch: int
    window: int
    tied: bool = False
    generates: bool = False

    def unit(self):
        return "char" if self.vocabulary < 1000 else "word"

    def name(self):
        size = f"{NAMES[self.cell]} {self.layers} × {self.hidden}, V {self.vocabulary:,}"
        if self.generates:
            return f"generation, {size}, B 1"
        return f"{size}{', tied' * self.tied}, E {self.embed}, B {self.batch}, T {self.window}"

    def sizes(self):
        sizes = {"model.cell": self.cell, "model.embed": self.embed, "model.hidden": self.hidden,
                 "model.layers": self.layers, "train.batch": self.batch,
                 "train.window": self.window, "data.tokens": self.unit(),
                 # A report every 0.1 to 0.5 seconds where products run at 200 to 1000 GFLOP/s.
                 "train.report_every": max(1, round(1e11 / (self.flops() * self.batch * self.window)))}
        return {**sizes, **({"model.tie_weights": "true"} if self.tied else {})}

    def flops(self):
        """Of a token's products, forward and twice as much backward."""
        widths = [self.embed] + [self.hidden] * (self.layers - 1)
        recurrent = sum(GATES[self.cell] * self.hidden * (width + self.hidden) for width in widths)
        return (1 if self.generates else 3) * 2 * (recurrent + self.hidden * self.vocabulary)


ROWS = {
    "lstm2x256": Row("lstm", 128, 2, 256, 65, 32, 64),
    "lstm1x512": Row("lstm", 64, 1, 512, 65, 50, 50),
    "lstm3x512": Row("lstm", 64, 3, 512, 65, 50, 50),
    "words10k": Row("lstm", 650, 2, 650, 10_000, 20, 35),
    "words33k": Row("lstm", 650, 2, 650, 33_278, 20, 35, tied=True),
    "gru2x256": Row("gru", 128, 2, 256, 65, 32, 64),
    "tanh2x256": Row("tanh", 128, 2, 256, 65, 32, 64),
    "generate": Row("lstm", 128, 2, 256, 65, 32, 64, generates=True),
}


def make_text(row, folder):
    """A text that has every token but Carousel's <unk>, with frequencies as in a language."""
    file, draw, count = folder / f"{row.vocabulary}.txt", random.Random(1), row.vocabulary - 1
    tokens = [f"w{i}" if row.unit() == "word" else chr(ord("0") + i) for i in range(count)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(count)))
    text = tokens + draw.choices(tokens, cum_weights=weights, k=600_000)
    file.write_text((" " if row.unit() == "word" else "").join(text))
    return file


def bench_of(carousel):
    return carousel.with_name("carousel_bench")


def ceilings(bench, threads):
    """The machine's rates now."""
    pattern = "|".join(CEILINGS.values())
    result = subprocess.run(
        [bench, f"--benchmark_filter=^({pattern})$", "--benchmark_format=json",
         "--benchmark_min_time=0.3"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    cases = json.loads(result.stdout)["benchmarks"]
    return {what: max(case[what.split()[1]] for case in cases if re.fullmatch(pattern, case["name"]))
            for what, pattern in CEILINGS.items()}


def measure(row, a, folder):
    """A row's figures."""
    kind = Generation if row.generates else Comparison
    comparison = kind(
        a.carousel, a.python, make_text(row, folder), row.sizes(), threads=a.threads,
        seconds=a.seconds, **({"folder": folder} if row.generates else {}),
        more=["--vocabulary", str(row.vocabulary), *(["--tied"] if row.tied else [])])
    tried = comparison.search("bf16")
    ways = {precision: next(way for way in tried if way.startswith(precision))
            for precision in ("f32", "bf16")}
    seen = []
    ours, theirs = ({precision: {"tokens/s": []} for precision in ways} for _ in range(2))
    for _ in range(a.rounds):
        seen.append(ceilings(bench_of(a.carousel), a.threads))
        for precision, record in ours.items():
            record["tokens/s"].append(comparison.ours(precision))
        for precision, record in theirs.items():
            line, = comparison.theirs([ways[precision]])
            record["tokens/s"].append(line["tokens/s"])
            record.update({"peak MB": line["peak MB"], "way": ways[precision]})
    for precision, record in ours.items():
        record["peak MB"] = comparison.our_peak(precision)
    for record in (*ours.values(), *theirs.values()):
        record["tokens/s"] = [rounded(rate) for rate in record["tokens/s"]]
    return {"carousel": ours, "pytorch": theirs, "torch": line["torch"],
            "ceilings": {what: rounded(statistics.median(rates[what] for rates in seen))
                         for what in CEILINGS},
            "tried": {way: rounded(rate) for way, rate in tried.items()},
            "refused": comparison.refused}


def rounded(value):
    return float(f"{value:.4g}")


def fastest(side):
    """The record of the faster precision."""
    return max(side.values(), key=lambda record: statistics.median(record["tokens/s"]))


def compared(figures):
    """Carousel in its faster precision over PyTorch in its fastest way: of rates, and of memory."""
    ours, theirs = fastest(figures["carousel"]), fastest(figures["pytorch"])
    rates = zip(ours["tokens/s"], theirs["tokens/s"])
    return (statistics.median(our / their for our, their in rates),
            ours["peak MB"] / theirs["peak MB"])


def thousands(record):
    return f"{statistics.median(record['tokens/s']) / 1e3:.3g}k"


def threads_text(count):
    return f"{count} thread{'s' * (count > 1)}"


def share(row, figures, precision):
    """Of the rate of a large product that a whole step of training has in its products."""
    rate = statistics.median(figures["carousel"][precision]["tokens/s"])
    return ratio(rate * row.flops() / 1e9 / figures["ceilings"][f"{precision} GFLOP/s"])


def geometric_mean(values):
    return math.exp(statistics.mean(map(math.log, values)))


def markdown(found):
    """A results file as Markdown."""
    rows = [(ROWS[key], found["rows"][key]) for key in ROWS if key in found["rows"]]
    speed = [[row.name(), *(thousands(figures[side][precision]) for side in ("carousel", "pytorch")
                            for precision in ("f32", "bf16")), ratio(compared(figures)[0])]
             for row, figures in rows]
    more = []
    for row, figures in rows:
        ours, theirs = (fastest(figures[side])["peak MB"] for side in ("carousel", "pytorch"))
        shares = ("–", "–") if row.generates else (share(row, figures, precision)
                                                   for precision in ("f32", "bf16"))
        more.append([row.name(), f"{ours} MB", f"{theirs} MB", ratio(compared(figures)[1]), *shares])
    trained = [compared(figures)[0] for row, figures in rows if not row.generates]
    rates = {what: statistics.median(figures["ceilings"][what] for _, figures in rows)
             for what in CEILINGS}
    mean = (f"Training is {geometric_mean(trained):.2f} times as fast in the geometric mean, "
            f"{min(trained):.2f} times at least. " if trained else "")
    versions = ", ".join(sorted({figures["torch"] for _, figures in rows}))
    dates = sorted({figures["date"] for _, figures in rows})
    return f"""{found["cpu"]}, {threads_text(found["threads"])}, PyTorch {versions}, {" to ".join(dates)}. \
{mean}Tokens per second:

{table(["", "Carousel, f32", "bf16", "PyTorch, f32", "bf16", "ratio"], speed)}

The peak of the resident set of each side's fastest, and the share that a whole step of Carousel's
reaches of the rate of a product of large matrices, {rates["f32 GFLOP/s"]:.0f} GFLOP/s in f32 and
{rates["bf16 GFLOP/s"]:.0f} GFLOP/s in bf16 (a copy in memory: {rates["copy GB/s"]:.0f} GB/s):

{table(["", "Carousel", "PyTorch", "ratio", "share, f32", "bf16"], more)}"""


def all_tables(folder):
    """Of all CPUs that have been measured."""
    found = (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))
    return "\n\n".join(markdown(one) for one in found if "cpu" in one)


def with_tables(readme, tables):
    """README's text with these tables in their place."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}"


def cpu():
    names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return names[0].strip() if names else "unknown CPU"


def commit():
    words = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def measure_all(a):
    name = cpu()
    file = RESULTS / (re.sub(r"\W+", "-", f"{name} {threads_text(a.threads)}".lower()) + ".json")
    found = json.loads(file.read_text()) if file.is_file() else {"rows": {}}
    found = {"cpu": name, "threads": a.threads, "rows": found["rows"]}
    for key in a.rows:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(ROWS[key], a, pathlib.Path(folder))
        found["rows"][key] = {"commit": commit(), "date": datetime.date.today().isoformat(),
                              **figures}
        file.parent.mkdir(exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(to_text(found) + "\n")
        os.replace(draft, file)
        rate, memory = compared(figures)
        print(f"cpu_table: {key}: speed {rate:.2f}, memory {memory:.2f} of PyTorch's, "
              f"{time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{markdown(found)}\n\n{os.path.relpath(file)}")


def rows_named(text):
    keys = text.split(",")
    for key in keys:
        if key not in ROWS:
            raise argparse.ArgumentTypeError(f"'{key}' is no row, expected some of {','.join(ROWS)}")
    return keys


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carousel", nargs="?", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--rows", type=rows_named, default=list(ROWS), help=",".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of steady work, each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--readme", action="store_true")
    a = parser.parse_args()
    if a.carousel:
        if not bench_of(a.carousel).is_file():
            parser.error(f"{bench_of(a.carousel)} is missing: build target carousel_bench")
        # Each side sets its own threads, and waits as it does by default.
        for name in [name for name in os.environ if name.startswith(("OMP_", "KMP_", "GOMP_"))]:
            del os.environ[name]
        measure_all(a)
    elif not a.readme:
        parser.error("the driver is missing, or --readme")
    if a.readme:
        readme = ROOT / "README.md"
        readme.write_text(with_tables(readme.read_text(), all_tables(RESULTS)))


if __name__ == "__main__":
    main()
