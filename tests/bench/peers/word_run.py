"""What zaremba_small.py and awd_lstm.py have in common: runs of a recipe on a text of words, and the
weights they begin with."""

import json
import pathlib
import re
import subprocess
import sys

import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "tests/golden")]
from exchange import load


def add_arguments(parser):
    parser.add_argument("carousel")
    parser.add_argument("train")
    parser.add_argument("validation")
    parser.add_argument("--words", type=int, default=1 << 40)


class WordRuns:
    """Runs of one recipe with Carousel, on the first words of a text and on what of another has a
    word of these alone."""

    def __init__(self, arguments, folder, recipe, block, *settings):
        words = pathlib.Path(arguments.train).read_text().split()[:arguments.words]
        # Whole windows alone: of what is left over, Carousel drops another part in each epoch.
        words = words[:(len(words) - 1) // block * block + 1]
        known = set(words)
        held_out = [w for w in pathlib.Path(arguments.validation).read_text().split() if w in known]
        self.binary, self.folder, self.words, self.held_out = arguments.carousel, folder, words, held_out
        (folder / "train.txt").write_text(" ".join(words))
        (folder / "valid.txt").write_text(" ".join(held_out))
        self.config = ROOT / "models/configs/recipes" / recipe
        self.settings = [f"data.text={folder / 'train.txt'}",
                         f"data.validation={folder / 'valid.txt'}",
                         "data.newline=text", "schedule.kind=constant", *settings]

    def driver(self, *arguments):
        result = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{self.binary} {arguments[0]} failed:\n{result.stderr}")
        return result

    def train(self, name, *settings, more=()):
        changes = [part for s in (*self.settings, *settings) for part in ("--set", s)]
        return self.driver("train", self.config, "--out", self.folder / name, *changes, *more)

    def start(self, name, *settings):
        """Weights by name, the text's tokens, those of the held-out text, and steps of an epoch: by
        one step that changes nothing."""
        told = self.train(name, "train.steps=1", "optimizer.learning_rate=0", *settings)
        steps = int(re.search(r"(\d+) steps an epoch", told.stderr).group(1))
        weights, ids, _ = load(self.folder / name / "checkpoints/last/model.safetensors")
        tokens, held_out = (torch.tensor([ids[w] for w in part])
                            for part in (self.words, self.held_out))
        return weights, tokens, held_out, steps

    def evaluate(self, name):
        """Nats per token of the held-out text."""
        scores = self.driver("eval", self.folder / name, "--data", self.folder / "valid.txt", "--json")
        return json.loads(scores.stdout)["nats_per_token"]


def rows_of(tokens, batch):
    """Tokens and targets [time, batch] of rows that are neighbouring parts of the text."""
    row = (len(tokens) - 1) // batch
    return (part[:batch * row].view(batch, row).t() for part in (tokens, tokens[1:]))


def evaluate_pytorch(read, tokens):
    """Mean nats of every token but the first, as one stream. read(tokens [T, 1], state or None)
    gives logits and the state after them."""
    total, state, stream = 0.0, None, tokens.view(-1, 1)
    with torch.no_grad():
        for at in range(0, len(stream) - 1, 512):
            x, y = stream[at:at + 512][:len(stream) - 1 - at], stream[at + 1:at + 513]
            logits, state = read(x, state)
            total += nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(),
                                                 reduction="sum").item()
    return total / (len(stream) - 1)
