#!/usr/bin/env python3
"""Carries weights between Carousel and PyTorch, both ways, and compares what the two compute.

    tests/golden/exchange.py CAROUSEL [--device cpu]

CAROUSEL is the driver binary. First it trains a small model, and PyTorch's Embedding, LSTM and
Linear take its weights by load_state_dict: then both must give the same probability to every token
that may follow a text, and the same loss to whole texts. Then PyTorch begins a model, and Carousel
trains on from its file (model.weights) beside PyTorch: the loss of every step, and the weights they
end with, must be the same. Prints a line per comparison; exit status 1 if one fails.

Any Python that has torch runs this; tests/golden/setup makes one.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from torch import nn
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "tests/golden")]
import safetensors_file
from modules import RecurrentLm

EMBED, HIDDEN, LAYERS, BATCH, WINDOW, STEPS = 16, 32, 2, 4, 16, 40
RATE, DECAY, CLIP_NORM = 1e-2, 1e-2, 1.0
CONFIG = f"""
[model]
kind = "lstm_lm"
embed = {EMBED}
hidden = {HIDDEN}
layers = {LAYERS}
[data]
text = "text.txt"
tokens = "char"
train_fraction = 1.0
[train]
steps = {STEPS}
batch = {BATCH}
window = {WINDOW}
report_every = 1
[optimizer]
kind = "adamw"
learning_rate = {RATE}
weight_decay = {DECAY}
clip_norm = {CLIP_NORM}
"""
TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(60))


class Driver:
    def __init__(self, binary, device, folder):
        self.binary, self.device, self.folder = binary, device, folder
        (folder / "config.toml").write_text(CONFIG)
        (folder / "text.txt").write_text(TEXT)

    def run(self, *arguments):
        command = [self.binary, *map(str, arguments), "--device", self.device]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"exchange: {' '.join(command)} failed:\n{result.stderr}")
        return result.stdout

    def train(self, name, *more):
        """The weights' file and the loss of every step."""
        run = self.folder / name
        self.run("train", self.folder / "config.toml", "--out", run, *more)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return run / "checkpoints/last/model.safetensors", [line["loss"] for line in lines]

    def loss(self, name, text):
        """Nats per token of a text, as one stream."""
        file = self.folder / "eval.txt"
        file.write_text(text)
        return json.loads(self.run("eval", self.folder / name, "--data", file, "--json",
                                   "--set", "train.batch=1"))["nats_per_token"]


def load(file):
    """The tensors of a file, and the id of each character it knows."""
    metadata, tensors = safetensors_file.read(file)
    assert all(dtype == "F32" for dtype, _, _ in tensors.values())
    weights = {name: torch.frombuffer(bytearray(block), dtype=torch.float32).reshape(shape)
               for name, (_, shape, block) in tensors.items()}
    lines = metadata["carousel.vocabulary"].split("\n")[1:-1]
    tokens = [line.split("\t")[0] for line in lines]
    plain = {"\\s": " ", "\\n": "\n"}  # as a vocabulary writes what this text has of white space
    return weights, {plain.get(token, token): i for i, token in enumerate(tokens)}


def save(file, module):
    safetensors_file.write(file, {name: ("F32", list(tensor.shape), tensor.numpy().tobytes())
                                  for name, tensor in module.state_dict().items()})


def new_module(vocabulary):
    return RecurrentLm("lstm", vocabulary, EMBED, HIDDEN, LAYERS)


def no_state(batch):
    return tuple(torch.zeros(LAYERS, batch, HIDDEN).double() for _ in range(2))


class Table:
    def __init__(self):
        self.ok = True

    def row(self, what, differences, allowed):
        ok = all(abs(d) <= allowed for d in differences)  # NaN is not
        self.ok = self.ok and ok
        print(f"{'ok    ' if ok else 'FAILED'}  {what:58} {len(differences):5} numbers, at most "
              f"{max(map(abs, differences)):.1e} apart, {allowed:.0e} allowed", flush=True)


def ours_in_pytorch(driver, table):
    file, _ = driver.train("ours")
    weights, ids = load(file)
    module = new_module(len(ids))
    module.load_state_dict(weights, strict=True)
    module.double()  # the same weights, without roundings of PyTorch's own

    def logits(text):
        tokens = torch.tensor([[ids[c]] for c in text])
        with torch.no_grad():
            return module(tokens, no_state(1))[0][:, 0], tokens[:, 0]

    prompt = "the 9 little ships sai"
    likely = functional.log_softmax(logits(prompt)[0][-1], dim=0)
    # What one more token adds to the loss of a text is minus its log-probability.
    so_far = driver.loss("ours", prompt) * (len(prompt) - 1)
    differences = [so_far - driver.loss("ours", prompt + c) * len(prompt) - likely[i].item()
                   for c, i in ids.items() if len(c) == 1]
    table.row("ours in PyTorch: log-probability of each next character", differences, 1e-5)

    texts = ["th", "isle\n", "sail round the isle", TEXT[500:600], TEXT]
    differences = []
    for text in texts:
        scores, tokens = logits(text)
        loss = functional.cross_entropy(scores[:-1], tokens[1:])
        differences.append(driver.loss("ours", text) - loss.item())
    table.row("ours in PyTorch: nats per token of whole texts", differences, 1e-5)


def trained_by_pytorch(module, ids):
    """The loss of each step, over windows of BATCH rows that lie side by side in the text."""
    stream = torch.tensor([ids[c] for c in TEXT])
    row = len(stream) // BATCH
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY)
    losses, state = [], no_state(BATCH)
    assert row * BATCH < len(stream) and STEPS * WINDOW <= row  # less than once through the text
    for step in range(STEPS):
        time = torch.arange(step * WINDOW, (step + 1) * WINDOW)
        window = time[:, None] + row * torch.arange(BATCH)  # [T, B], places in the stream
        optimizer.zero_grad(set_to_none=True)
        logits, state = module(stream[window], state)
        state = tuple(s.detach() for s in state)
        loss = functional.cross_entropy(logits.flatten(0, 1), stream[window + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
    return losses


def pytorchs_in_ours(driver, table):
    torch.manual_seed(1)
    module = new_module(len(set(TEXT)) + 1)  # and <unk>
    file = driver.folder / "pytorch.safetensors"
    save(file, module)
    trained, ours = driver.train("pytorchs", "--set", f"model.weights={file}")
    weights, ids = load(trained)
    module.double()
    theirs = trained_by_pytorch(module, ids)
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver(arguments.carousel, arguments.device, pathlib.Path(folder))
        ours_in_pytorch(driver, table)
        pytorchs_in_ours(driver, table)
    print(f"exchange: {'weights travel both ways' if table.ok else 'FAILED'}")
    return 0 if table.ok else 1


if __name__ == "__main__":
    sys.exit(main())
