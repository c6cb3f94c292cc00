#!/usr/bin/env python3
"""Tokens per second that Carousel's transformer_lm and PyTorch write at a batch of 1, in turn.

    generate_transformer.py CAROUSEL TEXT [--rounds 5] [--threads 2] [--tokens 1000]
                            [--set model.embed=384 ...]

CAROUSEL is the driver binary; run this with a Python that has torch. The model is that of
models/configs/transformer.toml with a context of 1024, untrained, and writes within its context from a
cache of keys and values. PyTorch's ways: steps that read the filled part of their cache, eager; and
compiled steps that read all of it under a mask, so that their shapes stay. Both in f32 and with weights
of bf16; tokens are drawn from the softmax. Printed are all rates, the medians of the rounds, and
Carousel's best divided by PyTorch's best.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parents[2] / "tools"), str(HERE.parents[1] / "golden")]
from gpu.build import ROOT
from modules import TransformerLm

CONFIG = ROOT / "models/configs/transformer.toml"
SIZES = {"model.context": 1024, "model.layers": 4, "model.heads": 4, "model.embed": 128}
PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}


class Peer:
    """A GPT in PyTorch that writes on from a cache."""

    def __init__(self, precision, compiled, sizes, vocabulary):
        torch.manual_seed(1)
        width, self.heads = sizes["model.embed"], sizes["model.heads"]
        self.context, self.compiled = sizes["model.context"], compiled
        dtype = PRECISIONS[precision]
        self.parts = TransformerLm(vocabulary, self.context, width, 4 * width, sizes["model.layers"],
                                   self.heads, self.heads, bias=False).to(dtype).transformer
        shape = (sizes["model.layers"], 2, 1, self.heads, self.context, width // self.heads)
        self.cache = torch.zeros(shape, dtype=dtype)
        self.places = torch.arange(self.context)
        self.step = torch.compile(self.next_token) if compiled else self.next_token

    def next_token(self, token, place, filled):
        """The token after `token` [1] at place [1]; without `filled`, under a mask."""
        x = self.parts.wte(token) + self.parts.wpe(place)
        for layer, block in enumerate(self.parts.h):
            q, k, v = block.attn.c_attn(block.ln_1(x)).view(1, 3, self.heads, 1, -1).unbind(1)
            keys, values = self.cache[layer]
            keys.index_copy_(2, place, k)
            values.index_copy_(2, place, v)
            if filled is None:
                y = functional.scaled_dot_product_attention(q, keys, values,
                                                            attn_mask=(self.places <= place)[None])
            else:
                y = functional.scaled_dot_product_attention(q, keys[:, :, :filled],
                                                            values[:, :, :filled])
            x = x + block.attn.c_proj(y.reshape(1, -1))
            x = x + block.mlp(block.ln_2(x))
        logits = functional.linear(self.parts.ln_f(x), self.parts.wte.weight)
        return torch.multinomial(torch.softmax(logits.float(), 1), 1)[0]

    def rate(self, count):
        token = torch.zeros(1, dtype=torch.long)
        with torch.inference_mode():
            for t in range(count + 8):  # the first of them warm up, and compile
                if t == 8:
                    began = time.perf_counter()
                at = t % self.context
                token = self.step(token, self.places[at:at + 1], None if self.compiled else at + 1)
        return count / (time.perf_counter() - began)


def written(carousel, run, precision, a):
    """Carousel's tokens per second after what is written first; a token is a byte here."""
    words = [carousel, "generate", run, "--tokens", str(a.tokens), "--precision", precision,
             "--threads", str(a.threads), "--prompt", "a"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        first = size = len(os.read(process.stdout.fileno(), 1 << 16))
        began = time.perf_counter()
        while block := os.read(process.stdout.fileno(), 1 << 16):
            size += len(block)
        return (size - first) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    sizes = dict(SIZES)
    for key, value in (change.split("=") for change in a.set):
        if key not in sizes:
            parser.error(f"--set {key}: expected one of {', '.join(sizes)}")
        sizes[key] = int(value)
    vocabulary = len(set(a.text.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        changes = {**sizes, "data.text": a.text.resolve(), "train.steps": 1, "train.sample_every": 0}
        subprocess.run([a.carousel, "train", CONFIG, "--out", run,
                        *(f"--set={key}={value}" for key, value in changes.items())],
                       check=True, capture_output=True)
        ways = {("Carousel", precision): lambda p=precision: written(a.carousel, run, p, a)
                for precision in PRECISIONS}
        for precision in PRECISIONS:
            for compiled in (False, True):
                name = f"{precision}{' compiled' if compiled else ''}"
                peer = Peer(precision, compiled, sizes, vocabulary)
                ways["PyTorch", name] = lambda peer=peer: peer.rate(a.tokens)
        rates = {way: [] for way in ways}
        for _ in range(a.rounds):
            for way, measure in ways.items():
                rates[way].append(measure())
    medians = {way: statistics.median(seen) for way, seen in rates.items()}
    print(f"PyTorch {torch.__version__}, {a.threads} threads, {sizes}, {a.tokens} tokens, medians of "
          f"{a.rounds} rounds, tokens/s")
    for way, median in medians.items():
        print(f"{' '.join(way)}: {median:.0f} ({min(rates[way]):.0f} to {max(rates[way]):.0f})")
    best = {side: max(rate for way, rate in medians.items() if way[0] == side)
            for side in ("Carousel", "PyTorch")}
    print(f"ratio of the best: {best['Carousel'] / best['PyTorch']:.2f}")


if __name__ == "__main__":
    main()
