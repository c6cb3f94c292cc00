#!/usr/bin/env python3
"""Trains the character model of models/configs/speed.toml in PyTorch and measures its speed.

    pytorch_char_lm.py TEXT [--cell lstm] [--device cpu|cuda] [--precision f32|tf32|bf16] ...

Embedding, recurrent layers, linear output, cross-entropy, truncated BPTT with carried state,
gradient clipping and AdamW: the same work per step as `carousel train`. Tries each way of running
for some seconds and prints a line of JSON for it: tokens per second, the median over reports of 20
steps after a warm-up, or the error that kept it from running.

    cpu     f32-2-threads, bf16-1-thread, ...: one thread and --threads of them; bf16 is autocast.
            With --precision bf16 the f32 ways are tried too: autocast can be the slower one.
    cuda    eager     step by step, kernel by kernel
            graph     the whole step as one CUDA graph
            compiled  the same with output layer and loss through torch.compile

On CUDA bf16 is autocast and AdamW is the fused one.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch
from torch import nn

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "golden"))
from modules import CELLS, RecurrentLm, run

REPORT_STEPS = 20


class CharLm(RecurrentLm):
    def loss(self, hidden, targets):
        logits = self.output(hidden)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Training:
    """A model, its optimizer, and fixed buffers for a batch and for the carried state."""

    def __init__(self, a, vocabulary, way, precision):
        torch.manual_seed(1)
        cuda = a.device == "cuda"
        self.options, self.precision, self.device = a, precision, torch.device(a.device)
        self.model = CharLm(a.cell, vocabulary, a.embed, a.hidden, a.layers).to(self.device)
        self.loss_of = torch.compile(self.model.loss) if way == "compiled" else self.model.loss
        extra = {"fused": True, "capturable": True} if cuda else {}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=a.learning_rate,
                                           weight_decay=0.01, **extra)
        self.tokens, self.targets = torch.zeros(2, a.window, a.batch, dtype=torch.long,
                                                device=self.device)
        self.state = tuple(torch.zeros(a.layers, a.batch, a.hidden, device=self.device)
                           for _ in CELLS[a.cell].states)
        self.step = self.captured() if way in ("graph", "compiled") else self.work

    def work(self):
        # Autocast's cache of cast weights would outlive a step of a graph.
        with torch.autocast(self.options.device, torch.bfloat16,
                            enabled=self.precision == "bf16", cache_enabled=False):
            x = self.model.embedding(self.tokens)
            hidden, state = run(self.model.recurrent(), x, self.state)
            loss = self.loss_of(hidden, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        for kept, new in zip(self.state, state):
            kept.copy_(new.detach())
        return loss.detach()

    def captured(self):
        """The step as a CUDA graph, after the warm-up on a side stream that capture requires."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                self.work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.work()

        def replay():
            graph.replay()
            return loss
        return replay

    def run(self, stream):
        """Tokens per second of each report after the warm-up, and the last loss in nats."""
        a, rates, at, began = self.options, [], 0, None
        while began is None or time.perf_counter() < began + a.seconds or len(rates) < 4:
            report_began = time.perf_counter()
            for _ in range(a.report_steps):
                if at + a.window + 1 > len(stream):
                    at = 0
                    for part in self.state:
                        part.zero_()
                self.tokens.copy_(stream[at:at + a.window])
                self.targets.copy_(stream[at + 1:at + a.window + 1])
                at += a.window
                loss = self.step()
            nats = loss.item()  # waits for the steps
            rates.append(a.report_steps * a.window * a.batch /
                         (time.perf_counter() - report_began))
            began = began or time.perf_counter()  # the first report is the warm-up
        return rates[1:], nats


def read_stream(file, batch, device):
    """The text's characters as [time, batch], and the size of their vocabulary."""
    with open(file, encoding="utf-8", newline="") as opened:
        text = opened.read()
    index = {c: i for i, c in enumerate(sorted(set(text)))}
    data = torch.tensor([index[c] for c in text], dtype=torch.long)
    row = len(data) // batch
    return data[:row * batch].view(batch, row).t().contiguous().to(device), len(index)


def ways_of(a):
    """{name: (way, precision, threads)}"""
    if a.device == "cuda":
        return {way: (way, a.precision, a.threads) for way in ("eager", "graph", "compiled")}
    return {f"{precision}-{threads}-thread{'s' if threads > 1 else ''}":
            ("eager", precision, threads)
            for precision in dict.fromkeys((a.precision, "f32"))
            for threads in sorted({a.threads, 1}, reverse=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--ways", help="those to try, separated by commas; default all")
    parser.add_argument("--seconds", type=float, default=6, help="of steady training, each way")
    parser.add_argument("--report-steps", type=int, default=REPORT_STEPS)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--embed", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = a.precision != "f32"
    torch.backends.cudnn.allow_tf32 = a.precision != "f32"
    stream, vocabulary = read_stream(a.text, a.batch, a.device)
    ways = ways_of(a)
    for name in a.ways.split(",") if a.ways else ways:
        line = {"way": name, "torch": torch.__version__}
        way, precision, threads = ways[name]
        torch.set_num_threads(threads)
        try:
            rates, nats = Training(a, vocabulary, way, precision).run(stream)
            line.update({"tokens/s": statistics.median(rates), "reports": len(rates),
                         "loss": nats})
        except Exception as error:  # a way that does not run is a result, too
            line["error"] = " ".join(str(error).split())[:300]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
