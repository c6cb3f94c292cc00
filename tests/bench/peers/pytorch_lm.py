#!/usr/bin/env python3
"""Trains a language model in PyTorch, or lets it generate, and measures its speed in several ways.

    pytorch_lm.py TEXT [--cell lstm] [--device cpu|cuda] [--ways WAY,WAY...] ...
    pytorch_lm.py TEXT --generate [--ways WAY,WAY...] ...

Training: embedding, recurrent layers, linear output, cross-entropy, truncated BPTT with carried
state, gradient clipping and AdamW: the same work per step as `carousel train`. Generation: a batch
of 1, a token drawn at temperature 1 from each step's distribution.

Each way runs for some seconds and prints a line of JSON: tokens per second, the median over reports
after a warm-up, and the peak resident set of the process so far; or the error that kept it from
running. A way is PRECISION/THREADS/OPTIMIZER/MODE, or PRECISION/THREADS/MODE of generation:

    precision  f32, tf32, bf16 (autocast), or bf16-weights: all weights and states are bf16
    optimizer  foreach, fused
    mode       of training: eager; compiled and max-autotune, which put output layer and loss through
               torch.compile; graph, the whole step as a CUDA graph, as on CUDA compiled is, too
               of generation: module (torch.nn.LSTM ...), cell (torch.lstm_cell ...), compiled and
               max-autotune (a whole step of cells), scripted (the loop over steps in TorchScript)
"""

import argparse
import contextlib
import json
import pathlib
import resource
import signal
import statistics
import sys
import time

import torch
from torch import nn

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "golden"))
from modules import CELLS, RecurrentLm, run

AUTOTUNE = "max-autotune-no-cudagraphs"
MODES = {"compiled": "default", "max-autotune": AUTOTUNE}  # of torch.compile


class Training:
    """A model, its optimizer, and fixed buffers for a batch and for the carried state."""

    def __init__(self, a, way):
        self.precision, threads, optimizer, mode = way.split("/")
        torch.set_num_threads(int(threads))
        torch.manual_seed(1)
        self.options, cuda = a, a.device == "cuda"
        dtype = torch.bfloat16 if self.precision == "bf16-weights" else torch.float32
        self.model = RecurrentLm(a.cell, a.vocabulary, a.embed, a.hidden, a.layers, a.tied)
        self.model.to(a.device, dtype)
        self.loss_of = self.loss if mode in ("eager", "graph") else torch.compile(
            self.loss, mode=MODES[mode])  # not the layers: torch.compile would unroll their steps
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=a.learning_rate, weight_decay=0.01, **{optimizer: True},
            capturable=cuda)
        self.tokens, self.targets = torch.zeros(2, a.window, a.batch, dtype=torch.long,
                                                device=a.device)
        self.state = tuple(torch.zeros(a.layers, a.batch, a.hidden, device=a.device, dtype=dtype)
                           for _ in CELLS[a.cell].states)
        self.step = self.captured() if cuda and mode != "eager" else self.work

    def loss(self, hidden):
        logits = self.model.output(hidden)
        return nn.functional.cross_entropy(logits.flatten(0, 1), self.targets.flatten())

    def work(self):
        # Autocast's cache of cast weights would outlive a step of a graph.
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.precision == "bf16",
                            cache_enabled=self.options.device == "cpu"):
            x = self.model.embedding(self.tokens)
            hidden, state = run(self.model.recurrent(), x, self.state)
            loss = self.loss_of(hidden)
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

    def measure(self, stream):
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
        return rates[1:], {"loss": nats}


def generate_lstm(embedding: torch.Tensor, weights: list[list[torch.Tensor]], output: torch.Tensor,
                  bias: torch.Tensor, token: torch.Tensor, h: list[torch.Tensor],
                  c: list[torch.Tensor], steps: int):
    """The next tokens, in the form that TorchScript and torch.compile take."""
    for _ in range(steps):
        x = embedding[token]
        for layer in range(len(weights)):
            w = weights[layer]
            h[layer], c[layer] = torch.lstm_cell(x, [h[layer], c[layer]], w[0], w[1], w[2], w[3])
            x = h[layer]
        logits = torch.nn.functional.linear(x, output, bias)
        token = torch.multinomial(torch.softmax(logits.float(), 1), 1)[:, 0]
    return token, h, c


class Generation:
    """An LSTM language model that writes a text."""
    STEPS = 50  # between two looks at the clock

    def __init__(self, a, way):
        precision, threads, self.mode = way.split("/")
        torch.set_num_threads(int(threads))
        torch.manual_seed(1)
        self.options = a
        dtype = torch.float32 if precision == "f32" else torch.bfloat16
        self.model = RecurrentLm("lstm", a.vocabulary, a.embed, a.hidden, a.layers).to(dtype)
        self.token = torch.zeros(1, dtype=torch.long)
        if self.mode == "module":
            self.state = tuple(torch.zeros(a.layers, 1, a.hidden, dtype=dtype) for _ in "hc")
            return
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.weights = [[getattr(self.model.lstm, f"{part}_l{layer}").detach() for part in parts]
                        for layer in range(a.layers)]
        self.h, self.c = ([torch.zeros(1, a.hidden, dtype=dtype) for _ in range(a.layers)]
                          for _ in "hc")
        self.write = generate_lstm
        if self.mode == "scripted":
            self.write = torch.jit.script(generate_lstm)
        elif self.mode != "cell":
            self.write = torch.compile(generate_lstm, mode=MODES[self.mode])

    def work(self):
        if self.mode == "module":
            for _ in range(self.STEPS):
                logits, self.state = self.model(self.token[None], self.state)
                self.token = torch.multinomial(torch.softmax(logits[0].float(), 1), 1)[:, 0]
            return
        # A compiled step is one step: unrolled ones would compile for minutes.
        at_once = self.STEPS if self.mode == "scripted" else 1
        for _ in range(0, self.STEPS, at_once):
            self.token, self.h, self.c = self.write(
                self.model.embedding.weight, self.weights, self.model.output.weight,
                self.model.output.bias, self.token, self.h, self.c, at_once)

    def measure(self, stream):
        rates, began = [], None
        with torch.inference_mode():
            self.work()
            while began is None or time.perf_counter() < began + self.options.seconds:
                report_began = time.perf_counter()
                self.work()
                rates.append(self.STEPS / (time.perf_counter() - report_began))
                began = began or time.perf_counter()
        return rates[1:], {}


def read_stream(a):
    """The text's tokens as [time, batch], and the size of their vocabulary."""
    text = pathlib.Path(a.text).read_bytes().decode()
    tokens = text.split() if a.tokens == "word" else text
    index = {token: i for i, token in enumerate(sorted(set(tokens)))}
    data = torch.tensor([index[token] for token in tokens], dtype=torch.long)
    row = len(data) // a.batch
    return data[:row * a.batch].view(a.batch, row).t().contiguous().to(a.device), len(index)


def usual_ways(a):
    if a.device == "cuda":
        return [f"{a.precision}/{a.threads}/fused/{mode}" for mode in ("eager", "graph", "compiled")]
    precisions = ("f32",) if a.precision == "f32" else ("f32", "bf16", "bf16-weights")
    threads = sorted({a.threads, 1}, reverse=True)
    if a.generate:
        return [f"{p}/{n}/{mode}" for p in precisions if p != "bf16" for n in threads
                for mode in ("module", "cell", "scripted")]
    return [f"{p}/{n}/foreach/eager" for p in precisions for n in threads]


@contextlib.contextmanager
def time_limit(seconds):
    def stop(number, frame):
        raise TimeoutError(f"not done after {seconds} seconds")
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--tokens", choices=("char", "word"), default="char")
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--ways", help="those to try; default: some for device and precision")
    parser.add_argument("--seconds", type=float, default=6, help="of steady work, each way")
    parser.add_argument("--limit", type=int, default=100, help="seconds that a way may take in all")
    parser.add_argument("--report-steps", type=int, default=20)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, help="default: the text's")
    parser.add_argument("--embed", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = a.precision != "f32"
    torch.backends.cudnn.allow_tf32 = a.precision != "f32"
    stream, found = read_stream(a)
    a.vocabulary = a.vocabulary or found
    for way in a.ways.split(",") if a.ways else usual_ways(a):
        line = {"way": way, "torch": torch.__version__}
        try:
            with time_limit(a.limit):
                rates, more = (Generation if a.generate else Training)(a, way).measure(stream)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
            line.update({"tokens/s": statistics.median(rates), "reports": len(rates),
                         "peak MB": round(peak * 1024 / 1e6), **more})
        except Exception as error:  # a way that does not run is a result, too
            line["error"] = " ".join(str(error).split())[:300]
        torch.compiler.reset()
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
