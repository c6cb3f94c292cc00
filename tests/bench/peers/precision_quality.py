#!/usr/bin/env python3
"""Validation loss of a character model after some steps of training, with Carousel in each precision
and with PyTorch in f32, from the same weights on the same batches.

    precision_quality.py CAROUSEL TEXT [--model lstm|transformer] [--steps 250,500,1000,2000]
                         [--precisions f32,bf16]

The models are those of models/configs/speed.toml and transformer.toml; the last tenth of TEXT is for
validation, as rows that begin without a state. Exit status 1 if a loss is more than 0.02 nats above
that of f32, or PyTorch's.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from torch import nn
from word_run import ROOT, rows_of

from exchange import load
from modules import RecurrentLm, TransformerLm

TOLERANCE = 0.02  # nats


class Lstm:
    """models/configs/speed.toml"""
    config, batch, window = "speed.toml", 32, 64
    embed, hidden, layers = 128, 256, 2

    def __init__(self, weights):
        self.module = RecurrentLm("lstm", len(weights["output.bias"]), self.embed, self.hidden,
                                  self.layers)
        self.module.load_state_dict(weights, strict=True)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=2e-3, weight_decay=0.01)

    def state(self):
        return tuple(torch.zeros(self.layers, self.batch, self.hidden) for _ in range(2))

    def read(self, x, state):
        """Logits of a window, and the state after it."""
        logits, state = self.module(x, state)
        return logits, tuple(part.detach() for part in state)

    @staticmethod
    def factor(step, steps):
        """Of the learning rate."""
        return 1


class Transformer:
    """models/configs/transformer.toml"""
    config, batch, window = "transformer.toml", 12, 64
    layers, heads, embed = 4, 4, 128

    def __init__(self, weights):
        self.module = TransformerLm(len(weights["transformer.wte.weight"]), self.window, self.embed,
                                    4 * self.embed, self.layers, self.heads, self.heads, bias=False)
        self.module.load_state_dict(weights, strict=True)
        parameters = list(self.module.parameters())
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
             {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0}],
            lr=1e-3, betas=(0.9, 0.99))

    def state(self):
        return None

    def read(self, x, state):
        return self.module(x), state

    @staticmethod
    def factor(step, steps):
        if step <= 100:
            return step / 100
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 100) / (steps - 100)))


MODELS = {"lstm": Lstm, "transformer": Transformer}


def whole_windows(text, model):
    """Of what is left over, Carousel drops another part in each epoch."""
    size = model.batch * model.window
    return text[:(len(text) - 1) // size * size + 1]


def train_carousel(a, folder, every, *settings):
    """{step: validation loss}"""
    changes = [f"data.text={folder.parent / 'train.txt'}",
               f"data.validation={folder.parent / 'valid.txt'}", f"train.steps={a.steps[-1]}",
               f"train.evaluate_every={every}", "train.save_every=0", "train.sample_every=0",
               *settings]
    subprocess.run([a.carousel, "train", ROOT / "models/configs" / MODELS[a.model].config, "--out",
                    folder, *(f"--set={change}" for change in changes)], check=True,
                   capture_output=True)
    reports = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {report["step"]: report["validation_loss"] for report in reports
            if "validation_loss" in report}


def window_loss(model, x, y, state):
    logits, state = model.read(x, state)
    return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()), state


def evaluate(model, tokens):
    total, state, (x, y) = 0.0, model.state(), rows_of(tokens, model.batch)
    with torch.no_grad():
        for at in range(0, len(x), model.window):
            part = x[at:at + model.window]
            loss, state = window_loss(model, part, y[at:at + model.window], state)
            total += loss.item() * len(part)
    return total / len(x)


def train_pytorch(model, tokens, validation, steps):
    (x, y), at, losses, state = rows_of(tokens, model.batch), 0, {}, model.state()
    rates = [group["lr"] for group in model.optimizer.param_groups]
    for step in range(1, steps[-1] + 1):
        if at + model.window > len(x):
            at, state = 0, model.state()
        loss, state = window_loss(model, x[at:at + model.window], y[at:at + model.window], state)
        at += model.window
        model.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        for group, rate in zip(model.optimizer.param_groups, rates):
            group["lr"] = rate * model.factor(step, steps[-1])
        model.optimizer.step()
        if step in steps:
            losses[step] = evaluate(model, validation)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--model", choices=MODELS, default="lstm")
    parser.add_argument("--steps", default="250,500,1000,2000")
    parser.add_argument("--precisions", default="f32,bf16")
    a = parser.parse_args()
    a.steps = sorted(map(int, a.steps.split(",")))
    text = pathlib.Path(a.text).read_bytes().decode()
    split = int(len(text) * 0.9)
    model = MODELS[a.model]
    parts = {"train": whole_windows(text[:split], model),
             "valid": whole_windows(text[split:], model)}
    losses = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part, content in parts.items():
            (folder / f"{part}.txt").write_bytes(content.encode())
        train_carousel(a, folder / "start", 0, "train.steps=1", "optimizer.learning_rate=0")
        start = folder / "start/checkpoints/last/model.safetensors"
        for precision in a.precisions.split(","):
            losses[precision] = train_carousel(a, folder / precision, math.gcd(*a.steps),
                                               f"run.precision={precision}",
                                               f"model.weights={start}")
        weights, ids, _ = load(start)
    tokens = (torch.tensor([ids.get(character, ids["<unk>"]) for character in content])
              for content in parts.values())
    losses["PyTorch"] = train_pytorch(model(weights), *tokens, a.steps)
    print("| step | " + " | ".join(losses) + " |\n| --- |" + " ---: |" * len(losses))
    worst = 0.0
    for step in a.steps:
        print(f"| {step} | " + " | ".join(f"{one[step]:.4f}" for one in losses.values()) + " |")
        best = min(losses[name][step] for name in ("f32", "PyTorch") if name in losses)
        worst = max(worst, *(one[step] - best for name, one in losses.items() if name != "PyTorch"))
    print(f"at most {worst:+.4f} nats above f32 and PyTorch")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
