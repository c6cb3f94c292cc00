#!/usr/bin/env python3
"""Word vectors beside gensim and fastText without subwords (Debian: python3-gensim, fasttext): words per
second, and how well the similarity of vectors agrees with people's, on the same text, with the same
options and epochs.

    word_vectors.py CAROUSEL TEXT WORDSIM353.csv [--kind cbow|skipgram] [--seeds 5] [--share 1 32]

Words per second are those of the text, all of them, over the time of training alone: gensim's without
counting words, fastText's by its own report, Carousel's by metrics.jsonl. All have 2 threads, and the
programs take turns.
"""

import argparse
import csv
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/support"))
import safetensors_file

MINIMUM_COUNT, WIDTH, WINDOW, NEGATIVES, SUBSAMPLE = 5, 100, 5, 5, 1e-3


def ranks(values):
    """From 0, those of equal values averaged."""
    values = np.asarray(values)
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values))
    result[order] = np.arange(len(values))
    for value in set(values):
        same = values == value
        result[same] = result[same].mean()
    return result


def spearman(pairs, vector):
    """Spearman's correlation of people's scores and cosines, and how many pairs have vectors."""
    human, cosine = [], []
    for a, b, score in pairs:
        x, y = vector(a), vector(b)
        if x is None or y is None:
            continue
        human.append(score)
        cosine.append(float(x @ y / math.sqrt((x @ x) * (y @ y))))
    return float(np.corrcoef(ranks(human), ranks(cosine))[0, 1]), len(human)


def with_gensim(arguments, lines, seed):
    from gensim.models import Word2Vec
    model = Word2Vec(vector_size=WIDTH, window=WINDOW, min_count=MINIMUM_COUNT, negative=NEGATIVES,
                     sample=SUBSAMPLE, sg=int(arguments.kind == "skipgram"), cbow_mean=1, workers=2,
                     seed=seed, epochs=arguments.epochs)
    model.build_vocab(lines)
    began = time.monotonic()
    model.train(lines, total_examples=model.corpus_count, epochs=arguments.epochs)
    seconds = time.monotonic() - began
    return seconds, lambda word: model.wv[word] if word in model.wv else None


def with_fasttext(arguments, folder, words, seed):
    out = folder / "fasttext"
    command = ["fasttext", arguments.kind, "-input", folder / "text.txt", "-output", out, "-minn", 0,
               "-maxn", 0, "-dim", WIDTH, "-ws", WINDOW, "-neg", NEGATIVES, "-t", SUBSAMPLE,
               "-minCount", MINIMUM_COUNT, "-epoch", arguments.epochs, "-thread", 2, "-seed", seed]
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    rate = 2 * float(re.findall(r"words/sec/thread:\s*(\d+)", result.stderr + result.stdout)[-1])
    table = {}
    for line in out.with_suffix(".vec").read_text().splitlines()[1:]:
        word, *numbers = line.split()
        table[word] = np.array(numbers, np.float32)
    return arguments.epochs * words / rate, table.get


def vocabulary(text):
    """Ids by token, of the text that a checkpoint keeps."""
    rows = text.split("\n")[1:]
    return {row.split("\t")[0]: i for i, row in enumerate(rows) if row}


def with_carousel(arguments, folder, seed, steps, share):
    out = folder / f"run{seed}-{share}"
    window = arguments.step // arguments.rows
    settings = {
        "model.kind": arguments.kind, "model.embed": WIDTH, "model.window": WINDOW,
        "model.negatives": NEGATIVES, "model.subsample": SUBSAMPLE,
        "model.share_negatives": share,
        "data.text": folder / "text.txt", "data.tokens": "word", "data.train_fraction": 1.0,
        "data.minimum_count": MINIMUM_COUNT, "data.document_end": "<eos>",
        "train.steps": steps, "train.batch": arguments.rows, "train.window": window,
        "train.seed": seed, "train.report_every": 1000, "train.evaluate_every": 0,
        "train.save_every": 0, "optimizer.kind": "sgd",
        "optimizer.learning_rate": arguments.learning_rate,
        "optimizer.groups": f"embedding.weight: learning_rate_factor={arguments.factor}",
        "schedule.kind": "linear", "schedule.final_fraction": 0.004}
    (folder / "config.toml").write_text("")
    command = [arguments.carousel, "train", folder / "config.toml", "--out", out, "--device", "cpu",
               "--threads", "2", "--json"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    metadata, tensors = safetensors_file.read(out / "checkpoints/last/model.safetensors")
    _, shape, block = tensors["embedding.weight"]
    table = np.frombuffer(block, np.float32).reshape(shape)
    ids = vocabulary(metadata["carousel.vocabulary"])
    return lines[-1]["seconds"], lambda word: table[ids[word]] if word in ids else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("carousel")
    parser.add_argument("text")
    parser.add_argument("wordsim")
    parser.add_argument("--kind", default="cbow", choices=("cbow", "skipgram"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--step", type=int, default=1024, help="words of a step")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--share", type=int, nargs="+", default=[1, 32],
                        help="predictions that share their words of noise")
    parser.add_argument("--learning-rate", type=float, default=0.025)
    parser.add_argument("--factor", type=float, help="of the embedding's learning rate")
    parser.add_argument("--only", choices=("gensim", "fasttext", "carousel"))
    arguments = parser.parse_args()
    if arguments.factor is None:
        arguments.factor = 6 if arguments.kind == "cbow" else 1
    with open(arguments.wordsim, newline="") as file:
        pairs = [(a.lower(), b.lower(), float(score)) for a, b, score in list(csv.reader(file))[1:]]
    # What one program would take for a word and the other not is left out for both.
    lines = [[word for word in line.lower().split() if word != "<unk>"]
             for line in pathlib.Path(arguments.text).read_text().splitlines()]
    lines = [line for line in lines if line]
    words = sum(map(len, lines))
    tokens = words + len(lines)
    steps = round(arguments.epochs * tokens / arguments.step)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "text.txt").write_text("\n".join(map(" ".join, lines)) + "\n")
        contenders = {"gensim": lambda seed: with_gensim(arguments, lines, seed),
                      "fasttext": lambda seed: with_fasttext(arguments, folder, words, seed)}
        for share in arguments.share:
            contenders[f"carousel, noise shared by {share}"] = (
                lambda seed, share=share: with_carousel(arguments, folder, seed, steps, share))
        rates = {name: [] for name in contenders if name.startswith(arguments.only or "")}
        scores = {name: [] for name in rates}
        for seed in range(1, arguments.seeds + 1):
            for name in rates:
                seconds, vector = contenders[name](seed)
                rates[name].append(arguments.epochs * words / seconds)
                score, found = spearman(pairs, vector)
                scores[name].append(score)
        for name, score in scores.items():
            error = np.std(score, ddof=1) / math.sqrt(len(score)) if len(score) > 1 else math.nan
            print(f"{arguments.kind}, {name}: {np.median(rates[name]) / 1e6:.3f} M words/s "
                  f"({min(rates[name]) / 1e6:.3f} to {max(rates[name]) / 1e6:.3f}), Spearman "
                  f"{np.mean(score):.4f} ± {error:.4f} on {found} pairs", flush=True)


if __name__ == "__main__":
    main()
