#!/usr/bin/env python3
"""Translation with Carousel's seq2seq and with the same model in PyTorch, from the same weights.

    translation.py CAROUSEL PAIRS [--attention dot] [--input-feeding] [--layers 1] [--steps 2500]
                   [--precision f32|bf16] [--seeds 3] [--longest 7] [--sources 1000] [--threads 2]

PAIRS has lines source<TAB>target; of each both are cut into words and marks, in small letters, and
pairs of more than LONGEST on either side are left out. A hash of the source puts 90 of 100 into
training, 5 into validation and 5 into the test, of which the first SOURCES are translated greedily.
Printed, for each seed and in the mean: BLEU of sacrebleu against one reference of each source, and
target tokens a second in training, in turn. Needs a Python with torch and sacrebleu.
"""

import argparse
import hashlib
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

import sacrebleu
import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "tests/golden")]
import safetensors_file
from exchange import load
from modules import Seq2Seq

BATCH, WIDTH, RATE, SHARES = 64, 256, 1e-3, {"train": 0.9, "valid": 0.95, "test": 1.0}
BEGIN, END = "<bos>", "<eos>"
LONGEST = 40  # tokens of a translation


def read_pairs(path, longest):
    parts = {part: [] for part in SHARES}
    seen = set()
    for line in pathlib.Path(path).read_text("utf-8").splitlines():
        pair = tuple(" ".join(re.findall(r"\w+|[^\w\s]", side.lower())) for side in line.split("\t")[:2])
        if pair in seen or not all(0 < len(side.split()) <= longest for side in pair):
            continue
        seen.add(pair)
        number = int.from_bytes(hashlib.blake2b(pair[0].encode(), digest_size=8).digest(), "big") / 2**64
        parts[next(part for part, end in SHARES.items() if number < end)].append(pair)
    return parts


def write_pairs(parts, folder):
    for part, pairs in parts.items():
        text = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / f"{part}.tsv").write_text(text, "utf-8")


def first_translations(pairs):
    """The first translation of each source."""
    return dict(reversed(pairs))


def bleu(translations, references):
    return sacrebleu.corpus_bleu(translations, [references], force=True).score


def recurrent_settings(attention, layers=1):
    return ["model.kind=seq2seq", f"model.attention={attention}", f"model.embed={WIDTH}",
            f"model.hidden={WIDTH}", f"model.layers={layers}", "model.bidirectional=true",
            "model.dropout=0"]


def recurrent_module(attention, layers=1, input_feeding=False):
    return lambda sources, vocabulary: Seq2Seq(
        "lstm", sources, vocabulary, WIDTH, WIDTH, layers, attention, bidirectional=True,
        input_feeding=input_feeding)


class Carousel:
    def __init__(self, a, folder, seed, *settings):
        self.a, self.folder = a, folder
        self.settings = [
            "data.kind=pairs", f"data.text={folder}/train.tsv",
            f"data.validation={folder}/valid.tsv", "data.tokens=word", "data.minimum_count=2",
            f"train.batch={BATCH}", f"train.seed={seed}", "optimizer.clip_norm=1",
            "train.evaluate_every=0", f"run.threads={a.threads}", *settings]
        self.start = self.train("start", "train.steps=1", "optimizer.learning_rate=0")

    def run(self, *arguments, **options):
        result = subprocess.run([self.a.carousel, *map(str, arguments)], capture_output=True, text=True,
                                **options)
        if result.returncode != 0:
            sys.exit(f"{self.a.carousel} {arguments[0]} failed:\n{result.stderr}")
        return result.stdout

    def train(self, name, *settings):
        (self.folder / "config.toml").write_text("")
        self.run("train", self.folder / "config.toml", "--out", self.folder / name,
                 *(f"--set={setting}" for setting in (*self.settings, *settings)))
        return self.folder / name / "checkpoints/last/model.safetensors"

    def train_from_start(self, *settings):
        """The reports."""
        self.train("run", f"train.steps={self.a.steps}", f"model.weights={self.start}",
                   *settings)
        return [json.loads(line) for line in (self.folder / "run/metrics.jsonl").open()]

    def translations(self, sources):
        text = self.run("predict", self.folder / "run", "--beam", 1, "--tokens", LONGEST,
                        "--threads", self.a.threads,
                        input="".join(f"{source}\n" for source in sources))
        return text.splitlines()


class PyTorch:
    precision = "f32"  # or bf16, of products, by autocast

    def __init__(self, a, start, seed, module, renamed=lambda weights: weights):
        """module(source vocabulary, vocabulary) takes what renamed() makes of the weights."""
        weights, self.ids, _ = load(start)
        lines = safetensors_file.read(start)[0]["carousel.vocabulary.source"].split("\n")[1:-1]
        self.source_ids = {line.split("\t")[0]: i for i, line in enumerate(lines)}
        self.words = {i: word for word, i in self.ids.items()}
        self.a, self.random = a, random.Random(seed)
        self.model = module(len(self.source_ids), len(self.ids))
        self.model.load_state_dict(renamed(weights), strict=True)

    def batch(self, sides, ids, before, after):
        """[T, B] and lengths [B]"""
        rows = [torch.tensor([ids[word] if word in ids else ids["<unk>"]
                              for word in (*before, *side.split(), *after)]) for side in sides]
        return nn.utils.rnn.pad_sequence(rows), torch.tensor([len(row) for row in rows])

    def logits(self, source, lengths, token):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            result = self.model(source, lengths, token)
        logits = result[0] if isinstance(result, tuple) else result  # else with attention's weights
        return logits.float()

    def loss(self, pairs, smoothing=0.0):
        """The mean over the tokens of the targets, and how many these are."""
        sources, targets = zip(*pairs)
        source, lengths = self.batch(sources, self.source_ids, (), (END,))
        text, sizes = self.batch(targets, self.ids, (BEGIN,), (END,))
        token, target = text[:-1], text[1:].clone()
        target[torch.arange(len(target))[:, None] >= sizes - 1] = -1
        return nn.functional.cross_entropy(
            self.logits(source, lengths, token).flatten(0, 1), target.flatten(), ignore_index=-1,
            label_smoothing=smoothing), int((target >= 0).sum())

    def update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()

    def rate(self, pairs):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0, fused=True)
        batches, rates, tokens, began = [], [], 0, time.perf_counter()
        for step in range(1, self.a.steps + 1):
            if not batches:  # of similar lengths, as Carousel's
                mixed = sorted(self.random.sample(pairs, len(pairs)),
                               key=lambda pair: [len(side.split()) for side in pair])
                batches = [mixed[i:i + BATCH] for i in range(0, len(mixed), BATCH)]
                self.random.shuffle(batches)
            loss, count = self.loss(batches.pop())
            self.update(optimizer, loss)
            tokens += count
            if step % 50 == 0:
                now = time.perf_counter()
                rates.append(tokens / (now - began))
                tokens, began = 0, now
        return statistics.median(rates)

    @torch.no_grad()
    def translations(self, sources):
        result = []
        for at in range(0, len(sources), BATCH):
            source, lengths = self.batch(sources[at:at + BATCH], self.source_ids, (), (END,))
            token = torch.full((1, source.shape[1]), self.ids[BEGIN])
            while len(token) <= LONGEST and not (token == self.ids[END]).any(0).all():
                likely = self.logits(source, lengths, token)[-1]
                likely[:, [self.ids["<unk>"], self.ids[BEGIN]]] = -torch.inf
                token = torch.cat((token, likely.argmax(-1)[None]))
            for row in token[1:].T.tolist():
                words = [self.words[i] for i in row]
                result.append(" ".join(words[:words.index(END)] if END in words else words))
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carousel")
    parser.add_argument("pairs")
    parser.add_argument("--attention", default="dot",
                        choices=("none", "dot", "general", "additive", "concat"))
    parser.add_argument("--input-feeding", action="store_true")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    for option, default in (("layers", 1), ("steps", 2500), ("seeds", 3), ("longest", 7),
                            ("sources", 1000), ("threads", 2)):
        parser.add_argument(f"--{option}", type=int, default=default)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    parts = read_pairs(a.pairs, a.longest)
    test = first_translations(parts["test"])
    sources = list(test)[:a.sources]
    scores, rates = {"Carousel": [], "PyTorch": []}, {"Carousel": [], "PyTorch": []}
    settings = [*recurrent_settings(a.attention, a.layers), "optimizer.kind=adamw",
                f"optimizer.learning_rate={RATE}", "optimizer.weight_decay=0",
                "train.report_every=50"]
    if a.input_feeding:
        settings.append("model.input_feeding=true")
    for seed in range(1, a.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_pairs(parts, folder)
            ours = Carousel(a, folder, seed, *settings)
            theirs = PyTorch(a, ours.start, seed,
                             recurrent_module(a.attention, a.layers, a.input_feeding))
            theirs.precision = a.precision
            reports = ours.train_from_start(f"run.precision={a.precision}")
            rate = statistics.median(report["tokens_per_second"] for report in reports[1:])
            both = {"Carousel": (rate, ours.translations(sources)),
                    "PyTorch": (theirs.rate(parts["train"]), theirs.translations(sources))}
        for side, (rate, translations) in both.items():
            rates[side].append(rate)
            scores[side].append(bleu(translations, [test[source] for source in sources]))
        print(f"seed {seed}: " + "; ".join(
            f"{side} BLEU {scores[side][-1]:.1f}, {rates[side][-1]:.0f} tokens/s" for side in both),
            flush=True)
    ratio = statistics.median(x / y for x, y in zip(*rates.values()))
    print(f"{len(parts['train'])} pairs, {len(sources)} sources: mean BLEU " + ", ".join(
        f"{side} {statistics.mean(score):.2f}" for side, score in scores.items()) +
        f"; tokens/s {ratio:.2f} times PyTorch's")


if __name__ == "__main__":
    main()
