#!/usr/bin/env python3
"""Times a training step of a classifier in PyTorch: the peer of the row "bidirectional=true" of
recurrent_option_costs, whose model, shapes and texts without padding it has.

    pytorch_classifier.py [--precision f32|bf16] [--threads 1] [--processor-time]

Embedding, bidirectional LSTM layers, their mean over time, linear output, cross-entropy, gradient
clipping and AdamW on random tokens. bf16 is autocast. Prints a line of JSON with the median in
milliseconds.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.embedding = nn.Embedding(a.vocabulary, a.embed)
        self.lstm = nn.LSTM(a.embed, a.hidden, a.layers, bidirectional=not a.one_direction)
        self.output = nn.Linear((1 if a.one_direction else 2) * a.hidden, 2)

    def forward(self, tokens):
        return self.output(self.lstm(self.embedding(tokens))[0].mean(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--one-direction", action="store_true")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=96)
    parser.add_argument("--embed", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--processor-time", action="store_true",
                        help="of all threads: with one, on a CPU that is busy with other things")
    a = parser.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    clock = time.process_time if a.processor_time else time.perf_counter
    model = Classifier(a)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    times = []
    for _ in range(a.rounds + 3):
        tokens = torch.randint(a.vocabulary, (a.window, a.batch))
        labels = torch.randint(2, (a.batch,))
        began = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "bf16"):
            loss = nn.functional.cross_entropy(model(tokens), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(1e3 * (clock() - began))
    print(json.dumps({"torch": torch.__version__, "precision": a.precision, "threads": a.threads,
                      "ms": statistics.median(times[3:])}))


if __name__ == "__main__":
    main()
