#!/usr/bin/env python3
"""Training tokens per second of Carousel and of PyTorch on the CPU, in turn, as a ratio.

    compare_char_lm.py CAROUSEL TEXT [--rounds 5] [--threads 2] [--python /usr/bin/python3]

CAROUSEL is the driver binary. Each round trains models/configs/speed.toml and its PyTorch twin
for as many steps; the medians and the ratio of every round are printed. PyTorch runs at its best
setting for Debian's build (see pytorch_char_lm.py).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE.parents[2] / "models/configs/speed.toml"


def carousel(binary, text, threads):
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        subprocess.run([binary, "train", CONFIG, "--out", run, "--device", "cpu", "--threads",
                        str(threads), "--set", f"data.text={pathlib.Path(text).resolve()}"],
                       check=True, capture_output=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        # The first two reports hold the first step and the warm-up.
        return statistics.median(line["tokens_per_second"] for line in lines[2:])


def pytorch(python, text, threads):
    environment = dict(os.environ, OPENBLAS_CORETYPE="SkylakeX", OMP_NUM_THREADS=str(threads))
    output = subprocess.run([python, HERE / "pytorch_char_lm.py", text, "--threads", str(threads),
                             "--steps", "120", "--warm-up", "40"],
                            check=True, capture_output=True, text=True, env=environment).stdout
    return float(output.split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default="/usr/bin/python3", help="one that has torch")
    a = parser.parse_args()

    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(carousel(a.carousel, a.text, a.threads))
        theirs.append(pytorch(a.python, a.text, a.threads))
        print(f"carousel {ours[-1]:8.0f}  pytorch {theirs[-1]:8.0f}  ratio "
              f"{ours[-1] / theirs[-1]:.2f}", flush=True)
    ratios = [x / y for x, y in zip(ours, theirs)]
    print(f"median   {statistics.median(ours):8.0f}  pytorch {statistics.median(theirs):8.0f}  "
          f"ratio {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
