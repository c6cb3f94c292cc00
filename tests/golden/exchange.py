#!/usr/bin/env python3
"""Carries weights between Carousel and PyTorch, both ways, and compares what the two compute.

    tests/golden/exchange.py CAROUSEL [--device cpu] [--cells lstm,gru,...]

CAROUSEL is the driver binary. For each recurrent cell, it first trains a small model, whose weights
PyTorch's modules take by load_state_dict: both must then give the same probability to every token
that may follow a text, and the same loss to whole texts. Then PyTorch initializes a model, and
Carousel continues training from its file (model.weights), in parallel with PyTorch: the loss of
every step and the final weights must be the same. Prints a line per comparison; exit status 1 if
one fails.

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
from modules import CELLS, RecurrentLm

EMBED, HIDDEN, LAYERS, BATCH, WINDOW, STEPS = 16, 32, 2, 4, 16, 40
RATE, DECAY, CLIP_NORM = 1e-2, 1e-2, 1.0
CONFIG = f"""
[model]
kind = "recurrent_lm"
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
    def __init__(self, binary, device, folder, cell):
        self.binary, self.device, self.folder, self.cell = binary, device, folder, cell
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
        self.run("train", self.folder / "config.toml", "--out", run, "--set",
                 f"model.cell={self.cell}", *more)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return run / "checkpoints/last/model.safetensors", [line["loss"] for line in lines]

    def loss(self, name, text):
        """Nats per token of a text, as one stream."""
        file = self.folder / "eval.txt"
        file.write_text(text)
        scores = self.run("eval", self.folder / name, "--data", file, "--json")
        return json.loads(scores)["nats_per_token"]


def load(file):
    """The tensors of a file, and the id of each character of its vocabulary."""
    metadata, tensors = safetensors_file.read(file)
    assert all(dtype == "F32" for dtype, _, _ in tensors.values())
    weights = {name: torch.frombuffer(bytearray(block), dtype=torch.float32).reshape(shape)
               for name, (_, shape, block) in tensors.items()}
    lines = metadata["carousel.vocabulary"].split("\n")[1:-1]
    tokens = [line.split("\t")[0] for line in lines]
    plain = {"\\s": " ", "\\n": "\n"}  # a vocabulary's escapes of this text's white space
    return weights, {plain.get(token, token): i for i, token in enumerate(tokens)}


def save(file, module):
    safetensors_file.write(file, {name: ("F32", list(tensor.shape), tensor.numpy().tobytes())
                                  for name, tensor in module.state_dict().items()})


def new_module(cell, vocabulary):
    return RecurrentLm(cell, vocabulary, EMBED, HIDDEN, LAYERS)


def no_state(cell, batch):
    return tuple(torch.zeros(LAYERS, batch, HIDDEN).double() for _ in CELLS[cell].states)


class Table:
    def __init__(self):
        self.ok, self.cell = True, None

    def row(self, what, differences, allowed):
        ok = all(abs(d) <= allowed for d in differences)  # NaN is not
        self.ok = self.ok and ok
        print(f"{'ok    ' if ok else 'FAILED'}  {self.cell:6}  {what:51} {len(differences):5} "
              f"numbers, at most {max(map(abs, differences)):.1e} apart, {allowed:.0e} allowed",
              flush=True)


def ours_in_pytorch(driver, table):
    file, _ = driver.train("ours")
    weights, ids = load(file)
    module = new_module(driver.cell, len(ids))
    module.load_state_dict(weights, strict=True)
    module.double()  # the same weights, without PyTorch's own rounding

    def logits(text):
        tokens = torch.tensor([[ids[c]] for c in text])
        with torch.no_grad():
            return module(tokens, no_state(driver.cell, 1))[0][:, 0], tokens[:, 0]

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


def trained_by_pytorch(cell, module, ids):
    """The loss of each step, over windows of BATCH parallel rows of the text."""
    stream = torch.tensor([ids[c] for c in TEXT])
    row = len(stream) // BATCH
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY)
    losses, state = [], no_state(cell, BATCH)
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
    module = new_module(driver.cell, len(set(TEXT)) + 1)  # and <unk>
    file = driver.folder / "pytorch.safetensors"
    save(file, module)
    trained, ours = driver.train("pytorchs", "--set", f"model.weights={file}")
    weights, ids = load(trained)
    module.double()
    theirs = trained_by_pytorch(driver.cell, module, ids)
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
    parser.add_argument("--cells", type=lambda text: text.split(","), default=list(CELLS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table()
    for cell in arguments.cells:
        table.cell = cell
        with tempfile.TemporaryDirectory() as folder:
            driver = Driver(arguments.carousel, arguments.device, pathlib.Path(folder), cell)
            ours_in_pytorch(driver, table)
            pytorchs_in_ours(driver, table)
    print(f"exchange: {'weights travel both ways' if table.ok else 'FAILED'}")
    return 0 if table.ok else 1


if __name__ == "__main__":
    sys.exit(main())
