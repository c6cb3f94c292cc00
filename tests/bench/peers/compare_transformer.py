#!/usr/bin/env python3
"""Training tokens per second of Carousel's transformer_lm and of PyTorch's best way, in turn.

    compare_transformer.py CAROUSEL TEXT [--rounds 5] [--threads 2] [--seconds 6]
                           [--set model.embed=384 ...]

CAROUSEL is the driver binary; run this with a Python that has torch. Each round trains
models/configs/transformer.toml, a small GPT over characters, in f32 and in bf16, and then the same
model in PyTorch: torch's scaled_dot_product_attention, fused AdamW, gradient clipping; eager and
compiled, in f32 and under bf16 autocast. Printed are all rates, and the ratio of Carousel's best to
PyTorch's best of the same round.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parents[2] / "tools"), str(HERE.parents[1] / "golden")]
from gpu.build import ROOT
from gpu.training import tokens_per_second
from modules import TransformerLm

CONFIG = ROOT / "models/configs/transformer.toml"
SIZES = {"train.batch": 12, "train.window": 64, "model.layers": 4, "model.heads": 4,
         "model.embed": 128}
WAYS = ("f32", "f32 compiled", "bf16", "bf16 compiled")
LIMIT = 600  # seconds a run may take


class Peer:
    """A GPT in PyTorch, trained in one way."""

    def __init__(self, way, sizes, vocabulary):
        torch.manual_seed(1)
        self.window, self.batch = sizes["train.window"], sizes["train.batch"]
        width = sizes["model.embed"]
        self.model = TransformerLm(vocabulary, self.window, width, 4 * width,
                                   sizes["model.layers"], sizes["model.heads"],
                                   sizes["model.heads"], bias=False)
        for parameter in self.model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.1,
                                           fused=True)
        self.half = way.startswith("bf16")
        self.loss = torch.compile(self.loss_of) if way.endswith("compiled") else self.loss_of

    def loss_of(self, token, target):
        logits = self.model(token)
        return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())

    def step(self, token, target):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.loss(token, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def rate(self, stream, seconds):
        """Tokens per second, the median over reports of 20 steps after two of warm-up."""
        rates, at, until = [], 0, None
        while until is None or time.perf_counter() < until:
            began = time.perf_counter()
            for _ in range(20):
                if at + self.window + 1 > len(stream):
                    at = 0
                self.step(stream[at:at + self.window], stream[at + 1:at + self.window + 1])
                at += self.window
            rates.append(20 * self.window * self.batch / (time.perf_counter() - began))
            if len(rates) == 2:
                until = time.perf_counter() + seconds
        return statistics.median(rates[2:])


def read_stream(text, batch):
    characters = pathlib.Path(text).read_bytes().decode()
    index = {character: i for i, character in enumerate(sorted(set(characters)))}
    data = torch.tensor([index[character] for character in characters], dtype=torch.long)
    row = len(data) // batch
    return data[:row * batch].view(batch, row).t().contiguous(), len(index)


def ours(a, precision):
    changes = {**a.changes, "data.text": pathlib.Path(a.text).resolve(), "train.evaluate_every": 0,
               "train.save_every": 0, "train.sample_every": 0, "train.report_every": 4,
               "run.precision": precision,
               "run.threads": a.threads, "run.device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        found = tokens_per_second(a.carousel, changes, log, time.monotonic() + LIMIT, a.seconds,
                                  config=CONFIG)
        if not isinstance(found, dict):
            sys.exit(f"compare_transformer.py: {a.carousel} ended with {found}: "
                     f"{log.read_text().splitlines()[-1]}")
    return found["tokens/s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    a = parser.parse_args()
    a.changes = {**SIZES, **{key: int(value) for key, value in (s.split("=") for s in a.set)}}
    a.changes["model.context"] = a.changes["train.window"]
    torch.set_num_threads(a.threads)
    stream, vocabulary = read_stream(a.text, a.changes["train.batch"])
    peers = {way: Peer(way, a.changes, vocabulary) for way in WAYS}
    ratios = []
    for _ in range(a.rounds):
        mine = {precision: ours(a, precision) for precision in ("f32", "bf16")}
        theirs = {way: peer.rate(stream, a.seconds) for way, peer in peers.items()}
        ratios.append(max(mine.values()) / max(theirs.values()))
        print("; ".join(f"{who} " + ", ".join(f"{way} {rate:.0f}" for way, rate in rates.items())
                        for who, rates in (("Carousel", mine), ("PyTorch", theirs))) +
              f"; ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
