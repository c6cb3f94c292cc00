#!/usr/bin/env python3
"""Character n-gram model with interpolated Kneser-Ney smoothing: the README's baseline.

    kneser_ney.py TEXT [--order 5] [--train-fraction 0.9] [--limit 200000]

Trains on the first part of TEXT and prints the mean loss in nats per character on the rest: on the
first LIMIT characters of the rest, and on all of it. A history that training has not seen gets the
probabilities of the next shorter history.

Source: Kneser & Ney 1995 (ICASSP); Chen & Goodman 1999, Computer Speech and Language 13:359,
section 2.7 and equation 20, with one discount D = n1 / (n1 + 2 n2) for each order, 1/2 if n1 is 0.
"""

import argparse
import math
from collections import Counter, defaultdict


class Order:
    """Discounted counts of one order's n-grams: occurrences in the text for the highest order, else
    the number of characters that precede the n-gram."""

    def __init__(self, counts):
        of_counts = Counter(counts.values())
        ones, twos = of_counts[1], of_counts[2]
        self.discount = ones / (ones + 2 * twos) if ones else 0.5
        self.counts = counts
        self.total = defaultdict(int)
        self.distinct = defaultdict(int)
        for gram, count in counts.items():
            self.total[gram[:-1]] += count
            self.distinct[gram[:-1]] += 1


def train(text, order):
    counts = Counter(text[i:i + order] for i in range(len(text) - order + 1))
    orders = [Order(counts)]
    for _ in range(order - 1):
        counts = Counter(gram[1:] for gram in counts)  # in how many contexts a gram continues
        orders.append(Order(counts))
    return orders[::-1]  # orders[n - 1] is the n-gram's


def log_probability(orders, vocabulary, history, character):
    probability = 1.0 / vocabulary
    for n, order in enumerate(orders):
        context = history[len(history) - n:] if n else ""
        total = order.total.get(context, 0)
        if total == 0:
            break  # a longer context was not seen either
        count = order.counts.get(context + character, 0)
        probability = (max(count - order.discount, 0.0)
                       + order.discount * order.distinct[context] * probability) / total
    return math.log(probability)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--train-fraction", type=float, default=0.9)
    parser.add_argument("--limit", type=int, default=200_000)
    arguments = parser.parse_args()

    with open(arguments.text, encoding="utf-8", newline="") as file:
        text = file.read()
    split = int(len(text) * arguments.train_fraction)
    orders = train(text[:split], arguments.order)
    vocabulary = len(set(text))

    loss = 0.0
    for i in range(split, len(text)):
        loss -= log_probability(orders, vocabulary, text[i - arguments.order + 1:i], text[i])
        done = i - split + 1
        if done == arguments.limit:
            print(f"first {done} validation characters: {loss / done:.4f} nats per character")
    print(f"all {done} validation characters: {loss / done:.4f} nats per character")


if __name__ == "__main__":
    main()
