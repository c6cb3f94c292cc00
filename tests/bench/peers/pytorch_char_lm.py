#!/usr/bin/env python3
"""The character model of models/configs/speed.toml in PyTorch, for a comparison in one run.

    pytorch_char_lm.py TEXT [--steps N] [--batch B] [--window T] ...

Embedding, LSTM layers, linear output, cross-entropy, truncated BPTT with carried state, gradient
clipping and AdamW: the same work a step as `carousel train`. Prints tokens per second over the
steps after a warm-up. Debian's PyTorch 1.13 is at its best with OPENBLAS_CORETYPE=SkylakeX in the
environment, package libopenblas0-openmp, and as many threads as there are cores.
"""

import argparse
import time

import torch
from torch import nn


class CharLm(nn.Module):
    def __init__(self, vocabulary, embed, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embed)
        self.lstm = nn.LSTM(embed, hidden, layers)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens, state):
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.output(hidden), state


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--embed", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    with open(a.text, encoding="utf-8", newline="") as file:
        text = file.read()
    characters = sorted(set(text))
    index = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([index[c] for c in text], dtype=torch.long)
    row = len(data) // a.batch
    stream = data[:row * a.batch].view(a.batch, row).t().contiguous()  # [time, batch]

    model = CharLm(len(characters), a.embed, a.hidden, a.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.learning_rate, weight_decay=0.01)
    criterion = nn.CrossEntropyLoss()
    state, at = None, 0
    for step in range(a.warm_up + a.steps):
        if step == a.warm_up:
            started = time.perf_counter()
        if at + a.window + 1 > row:
            at, state = 0, None
        tokens, targets = stream[at:at + a.window], stream[at + 1:at + a.window + 1]
        at += a.window
        optimizer.zero_grad(set_to_none=True)
        logits, state = model(tokens, state)
        state = tuple(s.detach() for s in state)
        loss = criterion(logits.view(-1, len(characters)), targets.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), a.clip_norm)
        optimizer.step()
    seconds = time.perf_counter() - started
    print(f"{a.steps * a.batch * a.window / seconds:.0f} tokens/s, last loss {loss.item():.4f} nats")


if __name__ == "__main__":
    main()
