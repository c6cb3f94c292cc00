#!/usr/bin/env python3
"""Trains Zaremba's small model (models/configs/recipes/zaremba_small.toml) with Carousel and with
PyTorch from the same weights on the same words, and prints the validation loss at each epoch's end.

    zaremba_small.py CAROUSEL TRAIN VALIDATION [--epochs 2] [--words N]

TRAIN and VALIDATION are texts of words between spaces; of TRAIN the first N words are used, and of
VALIDATION those that are in it. PyTorch begins with Carousel's weights, and nothing else is drawn.
Exit status 1 if the losses differ by more than 1 %.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "tests/golden")]
from exchange import load
from modules import RecurrentLm, run

UNITS, LAYERS, BATCH, WINDOW, RATE, CLIP_NORM = 200, 2, 20, 20, 20.0, 0.25


def batches(tokens, steps):
    """Windows of rows that follow one another in the text: (tokens, targets), [time, batch] each."""
    row = (len(tokens) - 1) // BATCH
    x = tokens[:BATCH * row].view(BATCH, row).t()
    y = tokens[1:BATCH * row + 1].view(BATCH, row).t()
    for at in range(0, steps * WINDOW, WINDOW):
        yield x[at:at + WINDOW], y[at:at + WINDOW]


def evaluate(model, tokens):
    """Mean nats of every token but the first, as one stream."""
    total, state = 0.0, tuple(torch.zeros(LAYERS, 1, UNITS) for _ in range(2))
    stream = tokens.view(-1, 1)
    with torch.no_grad():
        for at in range(0, len(stream) - 1, 512):
            x, y = stream[at:at + 512][:len(stream) - 1 - at], stream[at + 1:at + 513]
            hidden, state = run(model.recurrent(), model.embedding(x), state)
            loss = nn.functional.cross_entropy(model.output(hidden).flatten(0, 1), y.flatten(),
                                               reduction="sum")
            total += loss.item()
    return total / (len(stream) - 1)


def train_pytorch(model, tokens, validation, epochs, steps):
    losses, optimizer = [], torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(epochs):
        state = tuple(torch.zeros(LAYERS, BATCH, UNITS) for _ in range(2))
        for x, y in batches(tokens, steps):
            hidden, state = run(model.recurrent(), model.embedding(x), state)
            state = tuple(part.detach() for part in state)
            loss = nn.functional.cross_entropy(model.output(hidden).flatten(0, 1), y.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        losses.append(evaluate(model, validation))
    return losses


def driver(binary, *arguments):
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"zaremba_small: {binary} {arguments[0]} failed:\n{result.stderr}")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel")
    parser.add_argument("train")
    parser.add_argument("validation")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--words", type=int, default=1 << 40)
    a = parser.parse_args()

    words = pathlib.Path(a.train).read_text().split()[:a.words]
    # Whole windows alone: of what is left over, Carousel drops another part in each epoch.
    words = words[:(len(words) - 1) // (BATCH * WINDOW) * BATCH * WINDOW + 1]
    known = sorted(set(words))
    held_out = [w for w in pathlib.Path(a.validation).read_text().split() if w in set(known)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "train.txt").write_text(" ".join(words))
        (folder / "valid.txt").write_text(" ".join(held_out))
        config = ROOT / "models/configs/recipes/zaremba_small.toml"
        shared = ["--set", f"data.text={folder / 'train.txt'}",
                  "--set", f"data.validation={folder / 'valid.txt'}",
                  "--set", "data.newline=text", "--set", "schedule.kind=constant"]
        def train(name, *more):
            return driver(a.carousel, "train", config, "--out", folder / name, *shared, *more)

        # A step that changes nothing tells the weights, the words' ids and the length of an epoch.
        told = train("first", "--set", "train.steps=1", "--set", "optimizer.learning_rate=0")
        steps = int(re.search(r"in (\d+) steps an epoch", told.stderr).group(1))
        weights, ids, _ = load(folder / "first/checkpoints/last/model.safetensors")
        model = RecurrentLm("lstm", len(ids), UNITS, UNITS, LAYERS)
        model.load_state_dict(weights, strict=True)
        as_tokens = lambda text: torch.tensor([ids[word] for word in text])
        theirs = train_pytorch(model, as_tokens(words), as_tokens(held_out), a.epochs, steps)
        ok = True
        for epoch, their in enumerate(theirs, 1):
            train("run", "--set", f"train.steps={epoch * steps}", *(["--resume"] if epoch > 1 else []))
            scores = driver(a.carousel, "eval", folder / "run", "--data", folder / "valid.txt", "--json")
            our = json.loads(scores.stdout)["nats_per_token"]
            ok = ok and abs(our / their - 1) <= 0.01
            print(f"epoch {epoch} of {steps} steps: Carousel {our:.4f}, PyTorch {their:.4f} nats, "
                  f"{100 * (our / their - 1):+.2f} %", flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
