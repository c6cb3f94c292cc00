#!/usr/bin/env python3
"""BLEU of Carousel's models that translate beside the same models in PyTorch, from the same weights
on the same batches.

    translation_quality.py --data PAIRS --carousel CAROUSEL [--steps 1500] [--seeds 3]
                           [--kinds none,dot,additive,transformer] [--longest 7] [--threads 1]
                           [--cache FILE]

PAIRS has lines source<TAB>target; translation.py says how they are cut and divided. The kinds are
an LSTM of 256, without attention and with dot or additive attention, whose encoder reads in both
directions, and a transformer of two layers. Both sides train with Adam and without dropout, the
gradient clipped, labels smoothed, the learning rate rising over a tenth of the steps and falling as
a cosine, and translate all sources of the test greedily. Printed are BLEU of sacrebleu against one
reference of each source, in the mean and of each seed; the processor's seconds in training, of
Carousel with its start and validation; the loss of the first step, how far apart the two are there
at most, and the mean loss of the last hundred steps. --cache keeps what has ended, for a run that
is cut; it is not for changed programs. Exit status 1 if first losses are more than 1e-4 apart, or
mean BLEU more than 0.5. Needs a Python with torch and sacrebleu.
"""

import argparse
import hashlib
import json
import math
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import torch
from translation import (BATCH, Carousel, PyTorch, bleu, first_translations, read_pairs,
                         recurrent_module, recurrent_settings, write_pairs)

from modules import TransformerSeq2seq
from pair_batches import batches

FIRST_LOSS, BLEU = 1e-4, 0.5  # how far apart the two may be
SMOOTHING, FINAL = 0.1, 0.05
LAYERS, HEADS, WIDTH, HIDDEN = 2, 4, 256, 512
SIDES = ("Carousel", "PyTorch")


def transformer_module(sources, vocabulary):
    return TransformerSeq2seq(sources, vocabulary, WIDTH, HIDDEN, LAYERS, LAYERS, HEADS,
                              pre=False)


def in_one(weights):
    """With the three matrices of attention between two sequences in one, as torch's module has it,
    and the bias of keys that Carousel does without."""
    result = dict(weights)
    for name in weights:
        if name.endswith(".q_proj.weight"):
            of = name.removesuffix("q_proj.weight")
            result[f"{of}in_proj_weight"] = torch.cat([result.pop(f"{of}{part}_proj.weight")
                                                       for part in "qkv"])
            q, v = (result.pop(f"{of}{part}_proj.bias") for part in "qv")
            result[f"{of}in_proj_bias"] = torch.cat((q, torch.zeros_like(q), v))
    return result


KINDS = {  # learning rate, Carousel's settings, PyTorch's module and names
    "none": (2e-3, recurrent_settings("none"), (recurrent_module("none"),)),
    "dot": (2e-3, recurrent_settings("dot"), (recurrent_module("dot"),)),
    "additive": (2e-3, recurrent_settings("additive"), (recurrent_module("additive"),)),
    "transformer": (1e-3, ["model.kind=transformer_seq2seq", f"model.layers={LAYERS}",
                           f"model.heads={HEADS}", f"model.embed={WIDTH}", f"model.hidden={HIDDEN}",
                           "model.dropout=0"], (transformer_module, in_one)),
}


def warm_up(steps):
    return max(1, steps // 10)


def factor(step, steps):
    """Of the learning rate, as engine/training/schedule.h has it."""
    rise = warm_up(steps)
    if step <= rise:
        return step / rise
    return FINAL + (1 - FINAL) / 2 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def settings_of(kind, a):
    rate, settings, _ = KINDS[kind]
    return [*settings, f"model.label_smoothing={SMOOTHING}", "optimizer.kind=adam",
            f"optimizer.learning_rate={rate}", "schedule.kind=cosine",
            f"schedule.warm_up={warm_up(a.steps)}", f"schedule.final_fraction={FINAL}"]


def train_carousel(ours):
    """The loss of each step, and the seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    reports = ours.train_from_start("train.report_every=1")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ([report["loss"] for report in reports],
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def train_pytorch(theirs, kind, a, pairs, seed):
    """As train_carousel()."""
    optimizer = torch.optim.Adam(theirs.model.parameters(), lr=KINDS[kind][0], fused=True)
    lengths = [tuple(len(side.split()) + 1 for side in pair) for pair in pairs]
    losses, began = [], time.process_time()
    for step, numbers in zip(range(1, a.steps + 1), batches(lengths, BATCH, seed)):
        for group in optimizer.param_groups:
            group["lr"] = KINDS[kind][0] * factor(step, a.steps)
        loss, _ = theirs.loss([pairs[number] for number in numbers], SMOOTHING)
        theirs.update(optimizer, loss)
        losses.append(loss.item())
    return losses, time.process_time() - began


class Cache:
    """What has ended, by kind, seed and side; in memory without a file."""

    def __init__(self, file, of):
        self.file, self.of, self.all = file, of, {}
        if file and file.exists():
            self.all = json.loads(file.read_text())

    def key(self, *what):
        return ", ".join(map(str, (*what, self.of)))

    def get(self, *what):
        return self.all.get(self.key(*what))

    def put(self, result, *what):
        self.all[self.key(*what)] = result
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new = self.file.with_name(self.file.name + ".new")
            new.write_text(json.dumps(self.all, indent=1))
            new.replace(self.file)


def measure(a, parts, kind, seed, cache):
    """Both sides of a kind with a seed, unless they are in the cache."""
    missing = [side for side in SIDES if not cache.get(kind, seed, side)]
    if not missing:
        return
    references = first_translations(parts["test"])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_pairs(parts, folder)
        ours = Carousel(a, folder, seed, *settings_of(kind, a))
        for side in missing:
            if side == "Carousel":
                translator, trained = ours, train_carousel(ours)
            else:
                translator = PyTorch(a, ours.start, seed, *KINDS[kind][2])
                trained = train_pytorch(translator, kind, a, parts["train"], seed)
            losses, seconds = trained
            score = bleu(translator.translations(list(references)), list(references.values()))
            cache.put({"bleu": score, "seconds": seconds, "losses": losses}, kind, seed, side)
            print(f"{kind}, seed {seed}, {side}: BLEU {score:.2f}, {seconds:.0f} s",
                  file=sys.stderr, flush=True)


def row(kind, ours, theirs):
    """A line of the table, and whether it is as it should be."""
    scores = [[one["bleu"] for one in side] for side in (ours, theirs)]
    difference = statistics.mean(scores[0]) - statistics.mean(scores[1])
    apart = max(abs(x["losses"][0] - y["losses"][0]) for x, y in zip(ours, theirs))
    seconds = (f"{statistics.mean(one['seconds'] for one in side):.0f}" for side in (ours, theirs))
    last = (f"{statistics.mean(statistics.mean(one['losses'][-100:]) for one in side):.3f}"
            for side in (ours, theirs))
    cells = (kind, *(f"{statistics.mean(side):.2f} ({', '.join(f'{one:.2f}' for one in side)})"
                     for side in scores), f"{difference:+.2f}", *seconds,
             f"{ours[0]['losses'][0]:.4f}", f"{apart:.0e}", *last)
    return f"| {' | '.join(cells)} |", abs(difference) <= BLEU and apart <= FIRST_LOSS


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--carousel", required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--cache", type=pathlib.Path)
    for option, default in (("steps", 1500), ("seeds", 3), ("longest", 7), ("threads", 1)):
        parser.add_argument(f"--{option}", type=int, default=default)
    a = parser.parse_args()
    kinds = a.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds has {', '.join(sorted(unknown))}, "
                     f"expected some of {', '.join(KINDS)}")
    torch.set_num_threads(a.threads)
    parts = read_pairs(a.data, a.longest)
    given = json.dumps([parts, {kind: settings_of(kind, a) for kind in KINDS}])
    cache = Cache(a.cache, f"{a.steps} steps, "
                           f"{hashlib.blake2b(given.encode(), digest_size=8).hexdigest()}")
    for seed in range(1, a.seeds + 1):
        for kind in kinds:
            measure(a, parts, kind, seed, cache)
    print(f"{len(parts['train'])} pairs, {a.steps} steps of {BATCH}, "
          f"{len(first_translations(parts['test']))} sources, seeds 1 to {a.seeds}\n\n"
          "| kind | BLEU, Carousel | BLEU, PyTorch | difference | s | PyTorch's | first loss | "
          "apart | last | PyTorch's |\n| --- |" + " ---: |" * 9)
    fine = True
    for kind in kinds:
        line, ok = row(kind, *([cache.get(kind, seed, side) for seed in range(1, a.seeds + 1)]
                               for side in SIDES))
        print(line)
        fine = fine and ok
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
