#!/usr/bin/env python3
"""Trains Zaremba's small model (models/configs/recipes/zaremba_small.toml) with Carousel and with
PyTorch from the same weights on the same words, and prints the validation loss at each epoch's end.

    zaremba_small.py CAROUSEL TRAIN VALIDATION [--epochs 2] [--words N]

TRAIN and VALIDATION are texts of words between spaces; of TRAIN the first N words are used, and of
VALIDATION those that are in it. PyTorch begins with Carousel's weights, and nothing else is drawn.
Exit status 1 if the losses differ by more than 1 %.
"""

import argparse
import pathlib
import sys
import tempfile

import torch
from torch import nn
from word_run import WordRuns, add_arguments, evaluate_pytorch, rows_of

from modules import RecurrentLm

UNITS, LAYERS, BATCH, WINDOW, RATE, CLIP_NORM = 200, 2, 20, 20, 20.0, 0.25


def zeros(batch):
    return tuple(torch.zeros(LAYERS, batch, UNITS) for _ in range(2))


def train_pytorch(model, tokens, validation, epochs, steps):
    losses, optimizer = [], torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = rows_of(tokens, BATCH)
    for _ in range(epochs):
        state = zeros(BATCH)
        for at in range(0, steps * WINDOW, WINDOW):
            logits, state = model(x[at:at + WINDOW], state)
            state = tuple(part.detach() for part in state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), y[at:at + WINDOW].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        losses.append(evaluate_pytorch(lambda t, s: model(t, s or zeros(1)), validation))
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=2)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = WordRuns(a, pathlib.Path(name), "zaremba_small.toml", BATCH * WINDOW)
        weights, tokens, held_out, steps = runs.start("start")
        model = RecurrentLm("lstm", len(weights["output.bias"]), UNITS, UNITS, LAYERS)
        model.load_state_dict(weights, strict=True)
        theirs = train_pytorch(model, tokens, held_out, a.epochs, steps)
        ok = True
        for epoch, their in enumerate(theirs, 1):
            runs.train("run", f"train.steps={epoch * steps}", more=["--resume"] if epoch > 1 else [])
            our = runs.evaluate("run")
            ok = ok and abs(our / their - 1) <= 0.01
            print(f"epoch {epoch} of {steps} steps: Carousel {our:.4f}, PyTorch {their:.4f} nats, "
                  f"{100 * (our / their - 1):+.2f} %", flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
