#!/usr/bin/env python3
"""Times the op attention beside PyTorch's scaled_dot_product_attention, in turn, with as many threads.

    attention.py CAROUSEL_BENCH [--rounds 5] [--threads 2] [--seconds 0.3]

CAROUSEL_BENCH is the program tests/bench makes. Prints milliseconds, forward alone and forward with
backward, the median of the rounds, and PyTorch's time divided by Carousel's. Carousel reads queries,
keys and values side by side, as a model has them; PyTorch gets [B, A, T, D] as it likes it best.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

SHAPES = [(1024, 1, 8, 64), (64, 12, 4, 32)]  # T, B, A, D: as tests/bench/attention_bench.cpp has


def carousel_seconds(program, name, seconds):
    listed = subprocess.run(
        [program, f"--benchmark_filter=^{name}$", f"--benchmark_min_time={seconds}",
         "--benchmark_format=json"], check=True, capture_output=True, text=True)
    [result] = json.loads(listed.stdout)["benchmarks"]
    return result["real_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}[result["time_unit"]]


def torch_seconds(torch, shape, causal, dtype, backward, seconds):
    steps, batch, heads, width = shape
    size = (batch, heads, steps, width)
    q, k, v, d_y = (torch.rand(size).mul(2).sub(1).to(dtype) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_(backward)

    def work():
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        if backward:
            torch.autograd.grad(y, (q, k, v), d_y)

    work()
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < seconds:
        work()
        count += 1
    return (time.perf_counter() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", metavar="CAROUSEL_BENCH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch  # pylint: disable=import-outside-toplevel  (reads the environment)
    torch.set_num_threads(arguments.threads)
    print(f"PyTorch {torch.__version__}, {arguments.threads} threads, "
          f"median of {arguments.rounds} rounds; ms, Carousel / PyTorch: ratio")
    for shape in SHAPES:
        for causal in (False, True):
            for stored, dtype in (("float", torch.float32), ("bf16", torch.bfloat16)):
                row = []
                for backward in (False, True):
                    ours, theirs = [], []
                    for _ in range(arguments.rounds):
                        passes = ("forward", "backward") if backward else ("forward",)
                        steps, batch, heads, width = shape
                        ours.append(sum(carousel_seconds(
                            arguments.program,
                            f"attention_{each}<{stored}>/cuda:0/T:{steps}/B:{batch}/A:{heads}"
                            f"/D:{width}/causal:{int(causal)}/real_time", arguments.seconds)
                            for each in passes))
                        theirs.append(torch_seconds(torch, shape, causal, dtype, backward,
                                                    arguments.seconds))
                    mine, other = statistics.median(ours), statistics.median(theirs)
                    row.append(f"{mine * 1e3:.2f} / {other * 1e3:.2f}: {other / mine:.2f}")
                print(f"T {shape[0]}, B {shape[1]}, A {shape[2]}, D {shape[3]}, "
                      f"{'causal' if causal else 'full'}, {stored}: forward {row[0]}; "
                      f"with backward {row[1]}", flush=True)


if __name__ == "__main__":
    main()
