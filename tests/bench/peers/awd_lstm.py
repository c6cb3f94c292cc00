#!/usr/bin/env python3
"""Trains a small AWD-LSTM (models/configs/recipes/awd_lstm.toml with 256 units) for one epoch with
Carousel and with PyTorch, from the same weights on the same words, once for each seed, and prints the
validation losses. The masks and the windows differ.

    awd_lstm.py CAROUSEL TRAIN VALIDATION [--words N] [--seeds 3]

TRAIN and VALIDATION are texts of words between spaces; of TRAIN the first N words are used, and of
VALIDATION those that are in it. Exit status 1 if the means differ by more than two standard errors.
"""

import argparse
import math
import pathlib
import random
import statistics
import sys
import tempfile

import torch
from torch import nn
from torch.nn import functional
from word_run import WordRuns, add_arguments, evaluate_pytorch, rows_of

UNITS, LAYERS, BATCH, WINDOW = 256, 3, 20, 70
RATE, WEIGHT_DECAY, CLIP_NORM = 30.0, 1.2e-6, 0.25
EMBEDDING, INPUT, HIDDEN, OUTPUT, WEIGHT = 0.1, 0.65, 0.2, 0.4, 0.5
ACTIVATION_PENALTY, TEMPORAL_PENALTY = 2.0, 1.0


def locked(x, p, training):
    """x [T, B, H] under one mask for all steps."""
    return x * functional.dropout(torch.ones_like(x[0]), p, training)


class AwdLstm(nn.Module):
    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value.clone()))

    def forward(self, token, state):
        """Logits, the top layer's output before and after dropout, and the state."""
        table = self.embedding_weight
        rows = functional.dropout(torch.ones(len(table), 1), EMBEDDING, self.training)
        x = locked(functional.embedding(token, table * rows), INPUT, self.training)
        last = []
        for layer in range(LAYERS):
            own = [getattr(self, f"lstm_{part}_l{layer}")
                   for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            own[1] = functional.dropout(own[1], WEIGHT, self.training)
            raw, h, c = torch.lstm(x, state[layer], own, True, 1, 0.0, self.training, False, False)
            last.append((h.detach(), c.detach()))
            x = locked(raw, HIDDEN if layer + 1 < LAYERS else OUTPUT, self.training)
        return functional.linear(x, table, self.output_bias), raw, x, last


def zeros(batch):
    return [(torch.zeros(1, batch, UNITS), torch.zeros(1, batch, UNITS)) for _ in range(LAYERS)]


def train_pytorch(weights, tokens, validation, seed):
    torch.manual_seed(seed)
    draws = random.Random(seed)
    model = AwdLstm(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    x, y = rows_of(tokens, BATCH)
    state, at = zeros(BATCH), 0
    while at < len(x):
        base = WINDOW if draws.random() < 0.95 else WINDOW / 2
        window = max(5, round(draws.gauss(base, 5)))
        optimizer.param_groups[0]["lr"] = RATE * window / WINDOW
        logits, raw, dropped, state = model(x[at:at + window], state)
        loss = functional.cross_entropy(logits.flatten(0, 1), y[at:at + window].flatten())
        loss = loss + ACTIVATION_PENALTY * dropped.pow(2).mean()
        if len(raw) > 1:
            loss = loss + TEMPORAL_PENALTY * (raw[1:] - raw[:-1]).pow(2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        at += window
    model.eval()

    def read(token, before):
        logits, _, _, after = model(token, before or zeros(1))
        return logits, after

    return evaluate_pytorch(read, validation)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        runs = WordRuns(a, pathlib.Path(name), "awd_lstm.toml", BATCH * WINDOW, f"train.batch={BATCH}",
                        *(f"model.{key}={UNITS}" for key in ("embed", "hidden", "top_hidden")))
        for seed in range(1, a.seeds + 1):
            weights, tokens, held_out, steps = runs.start(f"start{seed}", f"train.seed={seed}")
            theirs.append(train_pytorch(weights, tokens, held_out, seed))
            runs.train(f"run{seed}", f"train.steps={steps}", f"train.seed={seed}")
            ours.append(runs.evaluate(f"run{seed}"))
            print(f"seed {seed}, {steps} steps: Carousel {ours[-1]:.4f}, "
                  f"PyTorch {theirs[-1]:.4f} nats", flush=True)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / a.seeds)
    print(f"means differ by {difference:+.4f} nats, {abs(difference) / error:.2f} standard errors")
    return 0 if abs(difference) <= 2 * error else 1


if __name__ == "__main__":
    sys.exit(main())
