#!/usr/bin/env python3
"""Carries weights between Carousel and PyTorch, both ways, and compares what the two compute.

    tests/golden/exchange.py CAROUSEL [--device cpu] [--cases lstm,gru,...]

CAROUSEL is the driver binary. For each case, a language model of a recurrent cell or a classifier
that reads in both directions, it first trains a small model, whose weights PyTorch's modules take
by load_state_dict. Both must then give the same probability to every token that may follow a text,
and the same loss to whole texts; a classifier, the same probability to every label of a text; the
hidden states that `embed` writes must be those that PyTorch's output layer reads. Then PyTorch initializes a model, and Carousel continues training from its file (model.weights), in
parallel with PyTorch: the loss of every step and the final weights must be the same. Prints a line
per comparison; exit status 1 if one fails.

Any Python that has torch runs this; tests/golden/setup makes one.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy
import torch
from torch import nn
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "tests/golden")]
import safetensors_file
from modules import CELLS, Classifier, RecurrentLm

EMBED, HIDDEN, LAYERS, PROJECTED, BATCH, WINDOW, STEPS = 16, 32, 2, 12, 4, 16, 40
RATE, DECAY, CLIP_NORM = 5e-3, 1e-2, 1.0
CONFIG = f"""
[model]
embed = {EMBED}
hidden = {HIDDEN}
layers = {LAYERS}
[data]
text = "text.txt"
tokens = "char"
train_fraction = 1.0
[train]
steps = {STEPS}
window = {WINDOW}
report_every = 1
[optimizer]
kind = "adamw"
learning_rate = {RATE}
weight_decay = {DECAY}
clip_norm = {CLIP_NORM}
"""
TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(60))
# A classifier trains on all of them in every step, so that their order does not matter: they are
# short enough to be padded to the same length, and so share a batch.
WORDS = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("tide", repeat=n)]
EXAMPLES = [(("north", "east", "south", "west")[(word.count("t") + 2 * word.count("d")) % 4], word)
            for word in WORDS]


class Case(NamedTuple):
    cell: str
    projects: bool = False
    classifies: bool = False  # in both directions

    def settings(self):
        """Of Carousel's model and data."""
        settings = [f"model.cell={self.cell}"]
        settings += [f"model.projection={PROJECTED}"] if self.projects else []
        if not self.classifies:
            return [*settings, "model.kind=recurrent_lm", f"train.batch={BATCH}"]
        return [*settings, "model.kind=classifier", "model.bidirectional=true",
                "data.kind=labelled", f"train.batch={len(EXAMPLES)}"]

    def text(self):
        """What is trained on."""
        if not self.classifies:
            return TEXT
        return "".join(f"{label}\t{word}\n" for label, word in EXAMPLES)

    def module(self, vocabulary, classes):
        """PyTorch's."""
        options = {"proj_size": PROJECTED} if self.projects else {}
        if self.classifies:
            return Classifier(self.cell, vocabulary, classes, EMBED, HIDDEN, LAYERS, **options)
        return RecurrentLm(self.cell, vocabulary, EMBED, HIDDEN, LAYERS, **options)

    def no_state(self, batch):
        widths = {"h": PROJECTED if self.projects else HIDDEN, "c": HIDDEN}
        return tuple(torch.zeros(LAYERS, batch, widths[name]).double()
                     for name in CELLS[self.cell].states)


CASES = {cell: Case(cell) for cell in CELLS} | {
    "lstm_projected": Case("lstm", projects=True),
    "lstm_bidirectional": Case("lstm", classifies=True),
    "gru_bidirectional": Case("gru", classifies=True),
    "lstm_projected_bidirectional": Case("lstm", projects=True, classifies=True),
}


class Driver:
    def __init__(self, binary, device, folder, case):
        self.binary, self.device, self.folder, self.case = binary, device, folder, case
        (folder / "config.toml").write_text(CONFIG)
        (folder / "text.txt").write_text(case.text())

    def run(self, *arguments):
        command = [self.binary, *map(str, arguments), "--device", self.device]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"exchange: {' '.join(command)} failed:\n{result.stderr}")
        return result.stdout

    def train(self, name, *more):
        """The weights' file and the loss of every step."""
        run = self.folder / name
        settings = [word for text in (*self.case.settings(), *more) for word in ("--set", text)]
        self.run("train", self.folder / "config.toml", "--out", run, *settings)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return run / "checkpoints/last/model.safetensors", [line["loss"] for line in lines]

    def loss(self, name, text):
        """Nats per token of a text, as one stream."""
        file = self.folder / "eval.txt"
        file.write_text(text)
        scores = self.run("eval", self.folder / name, "--data", file, "--json")
        return json.loads(scores)["nats_per_token"]

    def hidden(self, name, texts, what, ending):
        """Hidden states of lines, each on its own."""
        text, out = self.folder / "embed.txt", self.folder / f"embed{ending}"
        text.write_text("".join(text + "\n" for text in texts))
        out.unlink(missing_ok=True)
        self.run("embed", self.folder / name, "--data", text, "--out", out, "--what", what)
        if ending == ".npy":
            return torch.from_numpy(numpy.load(out))
        _, shape, block = safetensors_file.read(out)[1]["hidden"]
        return torch.frombuffer(bytearray(block), dtype=torch.float32).reshape(shape)

    def probabilities(self, name, texts):
        """Of each label, for each text."""
        file = self.folder / "predict.txt"
        file.write_text("".join(text + "\n" for text in texts))
        lines = self.run("predict", self.folder / name, "--data", file, "--json").splitlines()
        return [json.loads(line)["probabilities"] for line in lines]


def load(file):
    """The tensors of a file, the id of each token of its vocabulary and of each label."""
    metadata, tensors = safetensors_file.read(file)
    assert all(dtype == "F32" for dtype, _, _ in tensors.values())
    weights = {name: torch.frombuffer(bytearray(block), dtype=torch.float32).reshape(shape)
               for name, (_, shape, block) in tensors.items()}
    plain = {"\\s": " ", "\\n": "\n"}  # a vocabulary's escapes of this text's white space

    def ids(key):
        lines = metadata.get(key, "").split("\n")[1:-1]
        tokens = [line.split("\t")[0] for line in lines]
        return {plain.get(token, token): i for i, token in enumerate(tokens)}

    return weights, ids("carousel.vocabulary"), ids("carousel.vocabulary.label")


def save(file, module):
    safetensors_file.write(file, {name: ("F32", list(tensor.shape), tensor.numpy().tobytes())
                                  for name, tensor in module.state_dict().items()})


class Table:
    def __init__(self):
        self.ok, self.case = True, None

    def row(self, what, differences, allowed):
        ok = all(abs(d) <= allowed for d in differences)  # NaN is not
        self.ok = self.ok and ok
        print(f"{'ok    ' if ok else 'FAILED'}  {self.case:28}  {what:51} {len(differences):5} "
              f"numbers, at most {max(map(abs, differences)):.1e} apart, {allowed:.0e} allowed",
              flush=True)


def ours_in_pytorch(driver, table):
    """The ids of what both models know."""
    file, _ = driver.train("ours")
    weights, ids, labels = load(file)
    module = driver.case.module(len(ids), len(labels))
    module.load_state_dict(weights, strict=True)
    module.double()  # the same weights, without PyTorch's own rounding
    compare = compare_labels if driver.case.classifies else compare_next_characters
    compare(driver, table, module, ids, labels)
    return ids, labels


def read_by_output(module, *inputs):
    """What PyTorch's output layer reads."""
    read = []
    hook = module.output.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    with torch.no_grad():
        module(*inputs)
    hook.remove()
    return read[0]


def compare_labels(driver, table, module, ids, labels):
    texts = [text for _, text in EXAMPLES]
    with torch.no_grad():
        likely = functional.softmax(module(*padded(texts, ids)), dim=1)
    differences = [ours[label] - row[i].item()
                   for ours, row in zip(driver.probabilities("ours", texts), likely, strict=True)
                   for label, i in labels.items()]
    table.row("ours in PyTorch: probability of each label", differences, 1e-6)
    ours = driver.hidden("ours", texts, "last", ".npy")
    theirs = read_by_output(module, *padded(texts, ids))
    table.row("ours in PyTorch: last hidden states, as NumPy reads", (ours - theirs).flatten().tolist(),
              1e-5)


def compare_next_characters(driver, table, module, ids, _):
    def logits(text):
        tokens = torch.tensor([[ids[c]] for c in text])
        with torch.no_grad():
            return module(tokens, driver.case.no_state(1))[0][:, 0], tokens[:, 0]

    prompt = "the 9 little ships sai"
    likely = functional.log_softmax(logits(prompt)[0][-1], dim=0)
    # One more token adds minus its log-probability to the loss of a text.
    so_far = driver.loss("ours", prompt) * (len(prompt) - 1)
    differences = [so_far - driver.loss("ours", prompt + c) * len(prompt) - likely[i].item()
                   for c, i in ids.items() if len(c) == 1]
    table.row("ours in PyTorch: log-probability of next characters", differences, 1e-5)

    texts = ["th", "isle\n", "sail round the isle", TEXT[500:600], TEXT]
    differences = []
    for text in texts:
        scores, tokens = logits(text)
        loss = functional.cross_entropy(scores[:-1], tokens[1:])
        differences.append(driver.loss("ours", text) - loss.item())
    table.row("ours in PyTorch: nats per token of whole texts", differences, 1e-5)

    texts = TEXT.splitlines()
    ours = driver.hidden("ours", texts, "all", ".safetensors")
    theirs = torch.cat([read_by_output(module, torch.tensor([[ids[c]] for c in text]),
                                       driver.case.no_state(1))[:, 0] for text in texts])
    table.row("ours in PyTorch: hidden states of every step", (ours - theirs).flatten().tolist(),
              1e-5)


def padded(texts, ids):
    """Tokens [T, B] of whole texts, and their lengths. PyTorch sees nothing of the padding."""
    rows = [torch.tensor([ids["<bos>"], *(ids[c] for c in text), ids["<eos>"]]) for text in texts]
    return nn.utils.rnn.pad_sequence(rows), torch.tensor([len(row) for row in rows])


def window_losses(case, module, ids):
    """Over windows of BATCH parallel rows of the text."""
    stream = torch.tensor([ids[c] for c in TEXT])
    row = len(stream) // BATCH
    state = case.no_state(BATCH)
    assert row * BATCH < len(stream) and STEPS * WINDOW <= row  # less than once through the text
    for step in range(STEPS):
        time = torch.arange(step * WINDOW, (step + 1) * WINDOW)
        window = time[:, None] + row * torch.arange(BATCH)  # [T, B], places in the stream
        logits, state = module(stream[window], state)
        state = tuple(s.detach() for s in state)
        yield functional.cross_entropy(logits.flatten(0, 1), stream[window + 1].flatten())


def label_losses(module, ids, labels):
    """Over all examples, again and again."""
    label = torch.tensor([labels[label] for label, _ in EXAMPLES])
    inputs = padded([text for _, text in EXAMPLES], ids)
    for _ in range(STEPS):
        yield functional.cross_entropy(module(*inputs), label)


def trained_by_pytorch(module, losses):
    """The value of each step's loss, which is updated upon before the next is computed."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY)
    values = []
    for loss in losses:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        values.append(loss.item())
    return values


def pytorchs_in_ours(driver, table, ids, labels):
    torch.manual_seed(1)
    module = driver.case.module(len(ids), len(labels))
    file = driver.folder / "pytorch.safetensors"
    save(file, module)
    trained, ours = driver.train("pytorchs", f"model.weights={file}")
    weights, *same = load(trained)
    assert same == [ids, labels]
    module.double()
    theirs = trained_by_pytorch(module, label_losses(module, ids, labels) if driver.case.classifies
                                else window_losses(driver.case, module, ids))
    table.row("PyTorch's in ours: loss before any update", [ours[0] - theirs[0]], 1e-5)
    table.row("PyTorch's in ours: loss of each step of training",
              [a - b for a, b in zip(ours, theirs, strict=True)], 1e-5)
    differences = torch.cat([(weights[name] - tensor).flatten()
                             for name, tensor in module.state_dict().items()])
    table.row("PyTorch's in ours: weights after training", differences.tolist(), 1e-4)
    if not ours[-1] < ours[0] - 0.5:
        sys.exit(f"exchange: training took the loss from {ours[0]:.4f} to {ours[-1]:.4f} only")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carousel", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table()
    for table.case in arguments.cases:
        with tempfile.TemporaryDirectory() as folder:
            driver = Driver(arguments.carousel, arguments.device, pathlib.Path(folder),
                            CASES[table.case])
            pytorchs_in_ours(driver, table, *ours_in_pytorch(driver, table))
    print(f"exchange: {'weights travel both ways' if table.ok else 'FAILED'}")
    return 0 if table.ok else 1


if __name__ == "__main__":
    sys.exit(main())
