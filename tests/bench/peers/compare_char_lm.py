#!/usr/bin/env python3
"""Training tokens per second of Carousel and of PyTorch, in turn, and their ratio.

    compare_char_lm.py CAROUSEL TEXT [--cell lstm|gru|tanh|relu] [--device cpu|cuda]
                       [--precision f32|tf32|bf16] [--rounds 5] [--threads 2]
                       [--python build/torch/bin/python] [--set model.hidden=1024 ...]

CAROUSEL is the driver binary; --python needs torch (tests/golden/setup makes one). Each round
trains models/configs/speed.toml and its PyTorch twin for the same time; printed are the ratio of
every round and the medians. In the first round PyTorch runs in every way it has (see
pytorch_char_lm.py), and from then on in the fastest. --json prints one line of JSON instead.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2] / "tools"))
from gpu.training import tokens_per_second

# The options of pytorch_char_lm.py that keys of Carousel's config correspond to.
SIZES = {"model.cell": "--cell",
         "model.embed": "--embed", "model.hidden": "--hidden", "model.layers": "--layers",
         "train.batch": "--batch", "train.window": "--window",
         "train.report_every": "--report-steps"}
LIMIT = 300  # seconds a run may take


def carousel(a, sizes):
    changes = {**sizes, "data.text": pathlib.Path(a.text).resolve(), "run.device": a.device,
               "run.precision": a.precision, "run.threads": a.threads}
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        found = tokens_per_second(a.carousel, changes, log, time.monotonic() + LIMIT, a.seconds)
        if not isinstance(found, dict):
            sys.exit(f"compare_char_lm: {a.carousel} ended with {found}: "
                     f"{log.read_text().splitlines()[-1]}")
    return found["tokens/s"]


def pytorch(a, sizes, ways):
    """pytorch_char_lm.py's lines of the ways that ran, and of those that did not."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    words = [word for key, value in sizes.items() for word in (SIZES[key], str(value))]
    result = subprocess.run(
        [a.python, HERE / "pytorch_char_lm.py", a.text, "--device", a.device, "--precision",
         a.precision, "--threads", str(a.threads), "--seconds", str(a.seconds), *words,
         *(["--ways", ways] if ways else [])],
        capture_output=True, text=True, env=environment, timeout=LIMIT)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    ran = [line for line in lines if "error" not in line]
    if not ran:
        sys.exit(f"compare_char_lm: {a.python} trained nothing: {lines or result.stderr[-300:]}")
    return ran, [line for line in lines if "error" in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--cell", help="model.cell; default: that of the config, an LSTM")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of steady training, each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help=f"one of {', '.join(SIZES)}")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    sizes = dict(change.split("=", 1) for change in a.set)
    if a.cell:
        sizes["model.cell"] = a.cell
    for key in sizes:
        if key not in SIZES:
            sys.exit(f"compare_char_lm: --set {key}, expected one of {', '.join(SIZES)}")

    ours, theirs, ratios, refused, way = [], [], [], {}, None
    for _ in range(a.rounds):
        ours.append(carousel(a, sizes))
        ran, errors = pytorch(a, sizes, way)
        fastest = max(ran, key=lambda line: line["tokens/s"])
        way = fastest["way"]
        refused.update((line["way"], line["error"]) for line in errors)
        theirs.append(fastest["tokens/s"])
        ratios.append(ours[-1] / theirs[-1])
        if not a.json:
            print(f"carousel {ours[-1]:8.0f}  pytorch {theirs[-1]:8.0f} ({way})  ratio "
                  f"{ratios[-1]:.2f}", flush=True)
    if a.json:
        print(json.dumps({
            "carousel": round(statistics.median(ours)), "pytorch": round(statistics.median(theirs)),
            "ratios": [round(ratio, 3) for ratio in ratios], "way": way, "torch": fastest["torch"],
            "refused": refused}))
        return
    print(f"median   {statistics.median(ours):8.0f}  pytorch {statistics.median(theirs):8.0f}  "
          f"ratio {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
