#!/usr/bin/env python3
"""Training tokens per second of Carousel and of PyTorch, in turn, and their ratio.

    compare_lm.py CAROUSEL TEXT [--device cpu|cuda] [--precision f32|tf32|bf16] [--rounds 5]
                  [--threads 2] [--python build/torch/bin/python] [--set model.hidden=1024 ...]

CAROUSEL is the driver binary; --python needs torch (tests/golden/setup makes one). Each round
trains models/configs/speed.toml and its PyTorch twin for the same time; printed are the ratio of
every round and the medians. Before the first round PyTorch runs in many ways (see pytorch_lm.py)
for a short time each, and in the rounds in the fastest. --json prints one line of JSON instead.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2] / "tools"))
from gpu.training import CONFIG, tokens_per_second

# The options of pytorch_lm.py that keys of Carousel's config correspond to.
SIZES = {"model.cell": "--cell", "model.embed": "--embed", "model.hidden": "--hidden",
         "model.layers": "--layers", "train.batch": "--batch", "train.window": "--window",
         "train.report_every": "--report-steps", "data.tokens": "--tokens"}
LIMIT = 900  # seconds a run of several ways may take
SHORT = 1.0  # seconds of a way that is tried


def resident_peak(process):
    """Of a running process, in MB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return round(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6)


class Comparison:
    """Of one model, given as changes to models/configs/speed.toml."""

    def __init__(self, carousel, python, text, sizes, *, device="cpu", threads=None, seconds=6,
                 more=()):
        self.carousel, self.python, self.text, self.sizes = carousel, python, text, sizes
        self.device, self.threads, self.seconds = device, threads or os.cpu_count(), seconds
        self.more = list(more)  # of pytorch_lm.py's options
        self.refused = {}  # PyTorch's ways that did not run, with the reason

    def changes(self, precision):
        return {**self.sizes, "data.text": pathlib.Path(self.text).resolve(),
                "run.device": self.device, "run.precision": precision, "run.threads": self.threads}

    def ours(self, precision):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            found = tokens_per_second(self.carousel, self.changes(precision), log,
                                      time.monotonic() + LIMIT, self.seconds)
            if not isinstance(found, dict):
                sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {self.carousel} ended with {found}: "
                         f"{log.read_text().splitlines()[-1]}")
        return found["tokens/s"]

    def our_peak(self, precision):
        """Peak resident set in MB over the first steps, before anything is evaluated or saved."""
        with tempfile.TemporaryDirectory() as folder:
            words = [self.carousel, "train", CONFIG, "--out", pathlib.Path(folder) / "run"]
            changes = {**self.changes(precision), "train.steps": 10**9, "train.report_every": 1}
            for key, value in changes.items():
                words += ["--set", f"{key}={value}"]
            with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
                for line in process.stderr:
                    if line.startswith("step 4/"):
                        peak = resident_peak(process)
                        break
                process.kill()
        return peak

    def theirs(self, ways=None, seconds=None, more=(), required=True):
        """pytorch_lm.py's lines of the ways that ran, of all its usual ones if none are named."""
        words = [word for key, value in self.sizes.items() if key in SIZES
                 for word in (SIZES[key], str(value))]
        result = subprocess.run(
            [self.python, HERE / "pytorch_lm.py", self.text, "--device", self.device, "--threads",
             str(self.threads), "--seconds", str(seconds or self.seconds), *words, *self.more,
             *more, *(["--ways", ",".join(ways)] if ways else [])],
            capture_output=True, text=True, timeout=LIMIT)
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        self.refused.update((line["way"], line["error"]) for line in lines if "error" in line)
        ran = [line for line in lines if "error" not in line]
        if not ran and (required or not lines):
            sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {self.python} ran nothing: "
                     f"{lines or result.stderr[-300:]}")
        return ran

    def search(self, precision, compiles=True):
        """Tries PyTorch's ways, each for a short time; returns {way: tokens/s}, fastest first."""
        tried = {}

        def attempt(ways, more=()):
            lines = self.theirs(ways, SHORT, more, required=ways is None)
            tried.update((line["way"], line["tokens/s"]) for line in lines)

        attempt(None, ["--precision", precision])
        if self.device == "cpu" and compiles:
            # The fastest in f32 and in bf16 go on: first the optimizer, then torch.compile.
            attempt([way.replace("foreach", "fused") for way in best_of_each(tried)])
            attempt([way.replace("eager", "compiled") for way in best_of_each(tried)])
            if not (best := max(tried, key=tried.get)).endswith("eager"):
                attempt([best.replace("compiled", "max-autotune")])
        return fastest_first(tried)


def fastest_first(tried):
    return dict(sorted(tried.items(), key=lambda entry: -entry[1]))


def best_of_each(tried):
    """The fastest way in f32 and, if there are any, in bf16, be it by autocast or throughout."""
    best = {}
    for way in fastest_first(tried):
        best.setdefault(way.startswith("bf16"), way)
    return list(best.values())


class Generation(Comparison):
    """Of texts that are written at a batch of 1."""
    TOKENS = 50_000

    def __init__(self, *words, folder, more, **options):
        super().__init__(*words, **options, more=[*more, "--generate"])
        self.run = folder / "run"
        changes = {**self.changes("f32"), "train.steps": 1, "data.train_fraction": 0.99}
        subprocess.run([self.carousel, "train", CONFIG, "--out", self.run,
                        *(f"--set={key}={value}" for key, value in changes.items())],
                       check=True, capture_output=True)

    def written(self, precision):
        """Tokens per second after what is written first, and peak resident set in MB."""
        words = [self.carousel, "generate", self.run, "--tokens", str(self.TOKENS), "--precision",
                 precision, "--device", self.device, "--threads", str(self.threads)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            first = size = len(os.read(process.stdout.fileno(), 1 << 16))
            began, peak = time.perf_counter(), None
            while block := os.read(process.stdout.fileno(), 1 << 16):
                size += len(block)
                if peak is None and size > self.TOKENS // 2:
                    peak = resident_peak(process)
            return (size - first) / (time.perf_counter() - began), peak

    def ours(self, precision):
        return self.written(precision)[0]

    def our_peak(self, precision):
        return self.written(precision)[1]

    def search(self, precision):
        lines = self.theirs(None, SHORT, ["--precision", precision])
        tried = {line["way"]: line["tokens/s"] for line in lines}
        ways = [f"{way.rpartition('/')[0]}/{mode}" for way in best_of_each(tried)
                for mode in ("compiled", "max-autotune")]
        lines = self.theirs(ways, SHORT, required=False)
        tried.update((line["way"], line["tokens/s"]) for line in lines)
        return fastest_first(tried)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of steady training, each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help=f"one of {', '.join(SIZES)}")
    parser.add_argument("--no-compile", action="store_true",
                        help="on the CPU no torch.compile, which takes a minute or two")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    sizes = dict(change.split("=", 1) for change in a.set)
    for key in sizes:
        if key not in SIZES:
            sys.exit(f"compare_lm: --set {key}, expected one of {', '.join(SIZES)}")

    comparison = Comparison(a.carousel, a.python, a.text, sizes, device=a.device, threads=a.threads,
                            seconds=a.seconds)
    way = next(iter(comparison.search(a.precision, not a.no_compile)))
    ours, theirs, ratios = [], [], []
    for _ in range(a.rounds):
        ours.append(comparison.ours(a.precision))
        line, = comparison.theirs([way], more=["--precision", a.precision])
        theirs.append(line["tokens/s"])
        ratios.append(ours[-1] / theirs[-1])
        if not a.json:
            print(f"carousel {ours[-1]:8.0f}  pytorch {theirs[-1]:8.0f} ({way})  ratio "
                  f"{ratios[-1]:.2f}", flush=True)
    if a.json:
        print(json.dumps({
            "carousel": round(statistics.median(ours)), "pytorch": round(statistics.median(theirs)),
            "ratios": [round(ratio, 3) for ratio in ratios], "way": way, "torch": line["torch"],
            "refused": comparison.refused}))
        return
    print(f"median   {statistics.median(ours):8.0f}  pytorch {statistics.median(theirs):8.0f}  "
          f"ratio {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
