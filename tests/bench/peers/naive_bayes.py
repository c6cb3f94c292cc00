#!/usr/bin/env python3
"""Naive Bayes over character n-grams: the README's baseline for language identification.

    naive_bayes.py TRAIN.TSV VALIDATION.TSV [--order 3]

Lines are `label<TAB>text`. A text is the bag of its n-grams, with order − 1 spaces before it and one
behind; P(n-gram | label) is its relative frequency with an additive smoothing. The smoothing is
chosen on a tenth of TRAIN.TSV by a model of the other nine; like tools/language_words, the tenth
does not share the first five letters of a text with the rest. Then all of TRAIN.TSV is learnt.
Prints accuracy and macro F1, the unweighted mean over labels, of VALIDATION.TSV.

Source: McCallum & Nigam 1998, A Comparison of Event Models for Naive Bayes Text Classification,
the multinomial model.
"""

import argparse
import math
import zlib
from collections import Counter, defaultdict

SMOOTHINGS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def read(file):
    with open(file, encoding="utf-8") as lines:
        return [tuple(line.rstrip("\n").split("\t")) for line in lines]


class NaiveBayes:
    def __init__(self, order, examples):
        self.order = order
        self.counts = defaultdict(Counter)  # of each label's n-grams
        self.labels = Counter(label for label, _ in examples)
        for label, text in examples:
            self.counts[label].update(self.grams(text))
        self.totals = {label: sum(counts.values()) for label, counts in self.counts.items()}
        self.distinct = len(set().union(*self.counts.values()))

    def grams(self, text):
        text = " " * (self.order - 1) + text + " "
        return [text[i:i + self.order] for i in range(len(text) - self.order + 1)]

    def best(self, text, smoothing):
        grams = self.grams(text)

        def score(label):
            counts, total = self.counts[label], self.totals[label] + smoothing * self.distinct
            return math.log(self.labels[label]) + sum(
                math.log((counts[gram] + smoothing) / total) for gram in grams)
        return max(self.labels, key=score)

    def predict(self, examples, smoothing):
        return [(label, self.best(text, smoothing)) for label, text in examples]


def accuracy(pairs):
    return sum(want == got for want, got in pairs) / len(pairs)


def macro_f1(pairs):
    found = Counter(got for _, got in pairs)
    wanted = Counter(want for want, _ in pairs)
    right = Counter(want for want, got in pairs if want == got)
    labels = found | wanted
    return sum(2 * right[label] / (found[label] + wanted[label]) for label in labels) / len(labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("validation")
    parser.add_argument("--order", type=int, default=3)
    a = parser.parse_args()

    train, validation = read(a.train), read(a.validation)
    tenth = {pair: zlib.crc32(pair[1][:5].encode()) % 10 for pair in train}
    held_out = [pair for pair in train if tenth[pair] == 0]
    part = NaiveBayes(a.order, [pair for pair in train if tenth[pair] != 0])
    smoothing = max(SMOOTHINGS, key=lambda s: accuracy(part.predict(held_out, s)))
    pairs = NaiveBayes(a.order, train).predict(validation, smoothing)
    print(f"{len(pairs)} examples: accuracy {accuracy(pairs):.4f}, macro F1 {macro_f1(pairs):.4f}; "
          f"{a.order}-grams, smoothing {smoothing}")


if __name__ == "__main__":
    main()
