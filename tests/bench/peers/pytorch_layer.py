#!/usr/bin/env python3
"""Times PyTorch's recurrent layers at the shapes of recurrent_sequence_bench. On CUDA PyTorch
calls cuDNN.

    pytorch_layer.py [--cell lstm] [--device cpu|cuda] [--precision f32|tf32|bf16] T,B,I,H ...
    pytorch_layer.py --lengths T,B,I,H ...

One layer. forward: with what the backward pass needs; train: forward and backward, with gradients
of input, weights and biases. With --lengths rows have 1 to T steps, in no order, and are packed
within the time measured: the benchmark's train_lengths. The host waits after each pass, as in the
benchmark. Prints a line of JSON for each shape and pass: the median in milliseconds of the fastest
way that runs, eager or (on CUDA) as a CUDA graph; for bf16 in bf16 or in fp16, for which cuDNN has
kernels of its own.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "golden"))
from modules import CELLS

DTYPES = {"f32": [torch.float32], "tf32": [torch.float32],
          "bf16": [torch.bfloat16, torch.float16]}


class Layer:
    def __init__(self, cell, shape, dtype, device, has_lengths):
        steps, batch, width, hidden = shape
        torch.manual_seed(1)
        self.module = CELLS[cell].make(width, hidden, 1).to(device, dtype)
        self.x = torch.rand(steps, batch, width, device=device, dtype=dtype, requires_grad=True)
        self.lengths = None
        if has_lengths:
            self.lengths = torch.tensor([1 + (37 * row + 11) % steps for row in range(batch)])
        self.d_h = torch.rand(steps, batch, hidden, device=device, dtype=dtype)

    def forward(self):
        if self.lengths is None:
            return self.module(self.x)[0]
        packed = pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)
        return pad_packed_sequence(self.module(packed)[0], total_length=len(self.x))[0]

    def train(self):
        self.x.grad = None
        self.module.zero_grad(set_to_none=True)
        self.forward().backward(self.d_h)


def captured(work):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def milliseconds(work, wait, seconds, clock):
    for _ in range(3):
        work()
    wait()
    times, began = [], time.perf_counter()
    while time.perf_counter() < began + seconds or len(times) < 5:
        started = clock()
        work()
        wait()
        times.append(1e3 * (clock() - started))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=[cell for cell in CELLS if cell != "linear"],
                        default="lstm")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=DTYPES, default="f32")
    parser.add_argument("--lengths", action="store_true", help="rows of 1 to T steps, packed")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each way of each pass")
    parser.add_argument("--processor-time", action="store_true",
                        help="of all threads: with one, on a CPU that is busy with other things")
    parser.add_argument("shapes", nargs="+", metavar="T,B,I,H")
    a = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = a.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = a.precision == "tf32"
    cuda = a.device == "cuda"
    clock = time.process_time if a.processor_time else time.perf_counter
    wait = torch.cuda.synchronize if cuda else lambda: None
    for text in a.shapes:
        shape = [int(extent) for extent in text.split(",")]
        for name in ("forward", "train"):
            times, refused = {}, {}
            for mode in ("eager", "graph") if cuda else ("eager",):
                for dtype in DTYPES[a.precision]:
                    way = f"{str(dtype).split('.')[-1]} {mode}"
                    try:
                        work = getattr(Layer(a.cell, shape, dtype, a.device, a.lengths), name)
                        times[way] = milliseconds(captured(work) if mode == "graph" else work, wait,
                                                  a.seconds, clock)
                    except Exception as error:  # a way that does not run is a result, too
                        refused[way] = " ".join(str(error).split())[:300]
            line = {"cell": a.cell, "shape": text, "pass": name, "torch": torch.__version__,
                    "refused": refused}
            if times:
                line["way"] = min(times, key=times.get)
                line["ms"] = times[line["way"]]
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
