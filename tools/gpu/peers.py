"""Parts that time the LSTM of cuDNN, called directly, and of PyTorch, in turn with ours."""
import json
import re
import shutil
import subprocess
import sys
import time

from gpu import command, parts, training
from gpu.bench import Benchmarks
from gpu.build import ROOT, has_library
from gpu.gtest import PROBE_SECONDS, probe
from gpu.results import FAILED, PASSED, Outcome

PEERS = ROOT / "tests/bench/peers"
END_SECONDS = 30  # that a program may exceed its own time limit by


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"


class Cudnn(parts.Part):
    """lstm_vs_cudnn: every algorithm and precision of cuDNN, and ours. A case is a hidden width.
    The measurements of an unfinished case are kept and not repeated."""
    name, unit = "cudnn", "hidden widths"
    batched = False
    weight = 2
    HIDDEN = (1024, 256, 512, 128, 768, 1536, 2048)
    REHEARSED = (8, 132)
    # The fields of a line: the columns of a row in the results file.
    COLUMNS = ("H", "B", "T", "pass", "library", "version", "algorithm", "dtype", "launch",
               "layout", "status", "median_ms", "min_ms", "max_ms", "repetitions",
               "workspace_bytes", "reserve_bytes")
    LOST = 2  # the program's exit status after the device was lost

    def __init__(self, setting):
        super().__init__(setting)
        self.program = setting.build.program("lstm_vs_cudnn")

    def unavailable(self):
        if not self.program.is_file():
            return "no lstm_vs_cudnn: it was built without cuDNN's headers"
        if not self.setting.rehearsal and not has_library("libcudnn.so.9"):
            return "no libcudnn.so.9 among Python's packages or in a toolkit"
        return None

    def cases(self):
        widths = self.REHEARSED if self.setting.rehearsal else self.HIDDEN
        return [f"H = {width}" for width in widths]

    def forget(self):
        for file in self.setting.work.glob("cudnn-*"):
            file.unlink()

    def run(self, names, until, log, take):
        name = names[0]
        file = self.setting.work / f"cudnn-{name.replace(' ', '')}.jsonl"
        mark = file.with_name(f"{file.name}.running")
        mark.unlink(missing_ok=True)  # of a call that was ended
        if not file.is_file():  # another machine began it: take its lines from the results
            rows = self.figures.get(name, {}).get("rows", [])
            file.write_text("".join(json.dumps(line_of(self.COLUMNS, row)) + "\n" for row in rows))
        while True:
            seconds = until - time.monotonic() - END_SECONDS
            if seconds <= 0:
                return None
            status = self.sweep(name, file, seconds, until, log)
            figures = self.keep(name, file)
            if status == command.TIME_UP:
                mark.unlink(missing_ok=True)  # slow is not stuck
                return None
            if status == 0:
                left = re.search(r"^(\d+) of \d+ cells left", last_line(log))
                return None if left else {name: Outcome(PASSED, figures=figures)}
            if status != self.LOST and not mark.is_file():
                return {name: Outcome(FAILED, f"status {status}: {last_line(log)}", figures)}
            # An implementation hung or crashed, or the device was lost. The next start records that
            # one as failed and continues with the next.
            probe(self.setting, PROBE_SECONDS)

    def keep(self, name, file):
        """The measurements in the file, which become those of the case, also of an unfinished one."""
        lines = []
        for line in file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # it is being written
                break
        self.figures[name] = {"columns": self.COLUMNS,
                              "rows": [[line.get(column) for column in self.COLUMNS]
                                       for line in lines]}
        self.save()
        return self.figures[name]

    def sweep(self, name, file, seconds, until, log):
        def seen(line):
            self.keep(name, file)
            return command.NEXT

        sizes = ["--batch", "8", "--steps", "2", "--cell-seconds", "0"]
        return command.run([self.program, "--out", file, "--hidden", name.split()[-1], "--seconds",
                            f"{seconds:.0f}", *(sizes if self.setting.rehearsal else [])],
                           log, until, self.limit, seen)


class Pytorch(parts.Part):
    """torch.nn.LSTM and the whole character model in PyTorch, in turn with ours."""
    name, unit = "pytorch", "comparisons"
    limit = 300
    batched = False
    LSTM_PRECISIONS = ("bf16", "f32")  # those of our benchmark
    ROUNDS = 2

    def __init__(self, setting):
        super().__init__(setting)
        self.device = "cpu" if setting.rehearsal else "cuda"
        self.python = None

    def unavailable(self):
        """Finds a Python with torch; on a machine with a GPU, one whose torch sees the GPU."""
        expected = "True" if self.setting.rehearsal else "torch.cuda.is_available()"
        pythons = [sys.executable, shutil.which("python3") or "python3", "/usr/bin/python3"]
        for python in dict.fromkeys(pythons):
            try:
                found = subprocess.run([python, "-c", f"import torch; print({expected})"],
                                       capture_output=True, text=True, timeout=120).stdout
            except (OSError, subprocess.TimeoutExpired):
                continue
            if found.strip() == "True":
                self.python = python
                return None
        return "no python3 with a torch that sees the GPU"

    def cases(self):
        models = list(training.MODELS)[:1 if self.setting.rehearsal else None]
        return [*(f"nn.LSTM/{precision}/round {n + 1}" for precision in self.LSTM_PRECISIONS
                  for n in range(self.ROUNDS)),
                *(f"{model}/{precision}" for precision in training.PRECISIONS
                  for model in models if self.device == "cuda" or precision != "tf32")]

    def run(self, names, until, log):
        name = names[0]
        do = self.lstm if name.startswith("nn.LSTM") else self.character_model
        found = do(name, until, log)
        if found is None:
            return None
        return {name: Outcome(PASSED, figures=found) if isinstance(found, dict)
                else Outcome(FAILED, found)}

    def ended(self, status, log):
        """None if the part's time was up, else a description of a status that is not 0."""
        if status == command.TIME_UP:
            return None
        if status == command.STUCK:
            return f"stuck: stopped after {self.limit} s"
        return f"status {status}: {last_line(log)}"

    def lstm(self, name, until, log):
        """Ours at each shape, then theirs: a round."""
        _, precision, _ = name.split("/")
        ours = Benchmarks(self.setting, self.name, f"^recurrent_sequence/cuda/lstm/{precision}/")
        cases = ours.cases()
        outcomes = ours.run(cases, until, log)
        if outcomes is None:
            return None
        failed = [outcome.text for outcome in outcomes.values() if outcome.verdict == FAILED]
        if failed or len(outcomes) < len(cases):
            return "; ".join(failed) or f"some of our benchmarks did not end; see {log.name}"
        shapes = dict.fromkeys(map(shape_of, cases))
        lines = []
        status = command.run(
            [self.python, PEERS / "pytorch_layer.py", "--device", self.device, "--precision",
             precision, "--seconds", 0.01 if self.setting.rehearsal else 0.3, *shapes],
            log, until, self.limit, json_lines(lines))
        if status != 0:
            return self.ended(status, log)
        figures = {}
        for line in lines:
            case = next(case for case in cases if shape_of(case) == line["shape"] and
                        f"/{line['pass']}/" in case)
            figures[f"{line['pass']} {line['shape']}"] = {
                "carousel ms": outcomes[case].figures["ms"],
                "pytorch ms": float(f"{line.get('ms', float('nan')):.5g}"),
                "way": line.get("way"), "torch": line["torch"]}
        return figures

    def character_model(self, name, until, log):
        model, precision = name.split("/")
        keys = training.machine_keys(self.setting, model)
        text = keys.pop("data.text")
        lines = []
        status = command.run(
            [self.python, PEERS / "compare_lm.py", self.setting.build.program("carousel"),
             text, "--device", self.device, "--precision", precision, "--rounds", self.ROUNDS,
             "--seconds", 0.3 if self.setting.rehearsal else 4, "--python", self.python, "--json",
             *(["--no-compile"] if self.setting.rehearsal else []),
             *(word for key, value in keys.items() for word in ("--set", f"{key}={value}"))],
            log, until, self.limit, json_lines(lines))
        return lines[-1] if status == 0 else self.ended(status, log)


def line_of(columns, row):
    return {column: value for column, value in zip(columns, row) if value is not None}


def json_lines(lines):
    """Collects the figures from a program's output."""
    def seen(line):
        if line.startswith("{"):
            lines.append(json.loads(line))
            return command.NEXT
        return None
    return seen


def shape_of(case):
    """'T,B,I,H' of a benchmark's name."""
    return ",".join(re.findall(r"/[TBIH]:(\d+)", case))
