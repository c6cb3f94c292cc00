#!/usr/bin/env python3
"""Validation loss of a character model after some steps of training, with Carousel in each precision
and with PyTorch in f32, from the same weights on the same batches.

    precision_quality.py CAROUSEL TEXT [--steps 250,500,1000,2000] [--precisions f32,bf16]

The model is that of models/configs/speed.toml; the last tenth of TEXT is for validation, as rows that
begin without a state. Exit status 1 if a loss is more than 0.02 nats above that of f32, or PyTorch's.
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
from modules import RecurrentLm

BATCH, WINDOW, EMBED, HIDDEN, LAYERS = 32, 64, 128, 256, 2
RATE, WEIGHT_DECAY, CLIP_NORM = 2e-3, 0.01, 1.0
TOLERANCE = 0.02  # nats


def whole_windows(text):
    """Of what is left over, Carousel drops another part in each epoch."""
    return text[:(len(text) - 1) // (BATCH * WINDOW) * BATCH * WINDOW + 1]


def train_carousel(a, folder, every, *settings):
    """{step: validation loss}"""
    changes = [f"data.text={folder.parent / 'train.txt'}",
               f"data.validation={folder.parent / 'valid.txt'}", f"train.steps={a.steps[-1]}",
               f"train.evaluate_every={every}", *settings]
    subprocess.run([a.carousel, "train", ROOT / "models/configs/speed.toml", "--out", folder,
                    *(f"--set={change}" for change in changes)], check=True, capture_output=True)
    reports = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {report["step"]: report["validation_loss"] for report in reports
            if "validation_loss" in report}


def zeros():
    return tuple(torch.zeros(LAYERS, BATCH, HIDDEN) for _ in range(2))


def window_loss(model, x, y, state):
    logits, state = model(x, state)
    return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()), state


def evaluate(model, tokens):
    total, state, (x, y) = 0.0, zeros(), rows_of(tokens, BATCH)
    with torch.no_grad():
        for at in range(0, len(x), WINDOW):
            part = x[at:at + WINDOW]
            loss, state = window_loss(model, part, y[at:at + WINDOW], state)
            total += loss.item() * len(part)
    return total / len(x)


def train_pytorch(weights, tokens, validation, steps):
    model = RecurrentLm("lstm", len(weights["output.bias"]), EMBED, HIDDEN, LAYERS)
    model.load_state_dict(weights, strict=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    (x, y), at, losses, state = rows_of(tokens, BATCH), 0, {}, zeros()
    for step in range(1, steps[-1] + 1):
        if at + WINDOW > len(x):
            at, state = 0, zeros()
        loss, state = window_loss(model, x[at:at + WINDOW], y[at:at + WINDOW], state)
        state = tuple(part.detach() for part in state)
        at += WINDOW
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if step in steps:
            losses[step] = evaluate(model, validation)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("--steps", default="250,500,1000,2000")
    parser.add_argument("--precisions", default="f32,bf16")
    a = parser.parse_args()
    a.steps = sorted(map(int, a.steps.split(",")))
    text = pathlib.Path(a.text).read_bytes().decode()
    split = int(len(text) * 0.9)
    parts = {"train": whole_windows(text[:split]), "valid": whole_windows(text[split:])}
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
    losses["PyTorch"] = train_pytorch(weights, *tokens, a.steps)
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
