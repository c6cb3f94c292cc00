#!/usr/bin/env python3
"""The driver's embed: hidden states and token embeddings, against the same numbers computed here.

    driver_embed_test.py CAROUSEL DEVICE [TEST...]
"""

import ast
import json
import math
import pathlib
import signal
import struct
import subprocess
import sys
import time
from array import array

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import CAROUSEL, CLASSIFIER, DEVICE, EXAMPLES, SMALL_CONFIG, TEXT, DriverCase, main, run

LINES = ["the 7 little ships\n", "\n", "s\n", "sail\u00e9 \u4e16\n", "the isle " * 260 + "\n",
         "round the isle"]
KNOWN = ["the 7 little ships\n", "s\n", "isle of 4\n"]


def rows_of(numbers, columns):
    return [list(numbers[i:i + columns]) for i in range(0, len(numbers), columns)]


def read_npy(path):
    """The rows of a file as NumPy's format 1.0 describes it."""
    content = path.read_bytes()
    assert content[:8] == b"\x93NUMPY\x01\x00"
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10:10 + length]
    assert (10 + length) % 64 == 0 and header.endswith(b"\n")
    header = ast.literal_eval(header.decode("ascii"))
    rows, columns = header.pop("shape")
    assert header == {"descr": "<f4", "fortran_order": False}
    numbers = array("f", content[10 + length:])
    assert len(numbers) == rows * columns
    return rows_of(numbers, columns)


def read_safetensors(path):
    """Metadata, and each tensor as numbers or rows of them."""
    metadata, tensors = safetensors_file.read(path)
    result = {}
    for name, (dtype, shape, block) in tensors.items():
        numbers = array({"F32": "f", "I32": "i"}[dtype], block)
        result[name] = rows_of(numbers, shape[1]) if len(shape) == 2 else list(numbers)
    return metadata, result


def vocabulary(metadata):
    """The id of each token."""
    plain = {"\\s": " ", "\\n": "\n"}
    tokens = [line.split("\t")[0] for line in metadata["carousel.vocabulary"].split("\n")[1:-1]]
    return {plain.get(token, token): i for i, token in enumerate(tokens)}


def lstm(weights, ids):
    """The top layer's hidden states, as torch.nn.LSTM defines them."""
    def product(matrix, x):
        return [sum(w * value for w, value in zip(row, x, strict=True)) for row in matrix]

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    steps = [weights["embedding.weight"][i] for i in ids]
    layer = 0
    while f"lstm.weight_ih_l{layer}" in weights:
        w_ih, w_hh, b_ih, b_hh = (weights[f"lstm.{part}_l{layer}"]
                                  for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        width = len(w_hh[0])
        h, c, out = [0.0] * width, [0.0] * width, []
        for x in steps:
            gates = [sum(all_) for all_ in zip(product(w_ih, x), product(w_hh, h), b_ih, b_hh)]
            i, f, g, o = rows_of(gates, width)
            c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(width)]
            h = [sigmoid(o[k]) * math.tanh(c[k]) for k in range(width)]
            out.append(h)
        steps, layer = out, layer + 1
    return steps


def softmax(weights, state):
    logits = [sum(w * h for w, h in zip(row, state, strict=True)) + bias
              for row, bias in zip(weights["output.weight"], weights["output.bias"], strict=True)]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


class DriverEmbedTest(DriverCase):
    FILES = {"config.toml": SMALL_CONFIG, "text.txt": TEXT, "lines.txt": "".join(LINES),
             "words.tsv": EXAMPLES}

    def embed(self, name, *more, out="run", **options):
        return run("embed", self.here / out, "--out", self.here / name, *more, **options)

    def hidden(self, text, *more, out="run"):
        """Rows and steps."""
        file = self.here / "hidden.safetensors"
        file.unlink(missing_ok=True)
        self.embed(file.name, *more, out=out, input=text)
        tensors = read_safetensors(file)[1]
        self.assertEqual(sorted(tensors), ["hidden", "steps"])
        return tensors["hidden"], tensors["steps"]

    def weights(self, out="run"):
        return read_safetensors(self.here / out / "checkpoints/best/model.safetensors")

    def train_classifier(self, *more, out):
        (self.here / "config.toml").write_text(CLASSIFIER)
        self.train("--set", "model.bidirectional=true", *more, out=out)

    def assert_close(self, got, want, delta=1e-5):
        self.assertEqual(len(got), len(want))
        for a, b in zip(got, want):
            self.assertEqual(len(a), len(b))
            self.assertLess(max(abs(x - y) for x, y in zip(a, b)), delta)

    def test_hidden_states_are_those_of_an_lstm_with_the_weights(self):
        for unit in ("stream", "line"):
            out = f"run-{unit}"
            self.train("--set", f"data.unit={unit}", out=out)
            metadata, weights = self.weights(out)
            ids = vocabulary(metadata)
            begin = [ids["<bos>"]] if unit == "line" else []  # and the end of a line is not read
            expected = [lstm(weights, begin + [ids[c] for c in line.rstrip("\n")]) for line in KNOWN]
            hidden, steps = self.hidden("".join(KNOWN), "--what", "all", out=out)
            self.assertEqual(steps, [len(states) for states in expected])
            self.assert_close(hidden, [state for states in expected for state in states])
            hidden, same = self.hidden("".join(KNOWN), out=out)
            self.assertEqual(same, steps)
            self.assert_close(hidden, [states[-1] for states in expected])
            hidden, _ = self.hidden("".join(KNOWN), "--what", "mean", out=out)
            self.assert_close(hidden, [[sum(unit) / len(states) for unit in zip(*states)]
                                       for states in expected])

    def test_numpys_file_has_the_same_rows(self):
        self.train()
        for what in ("last", "mean", "tokens"):
            data = () if what == "tokens" else ("--data", self.here / "lines.txt")
            for ending in ("npy", "safetensors"):
                self.embed(f"{what}.{ending}", "--what", what, *data)
            tensors = read_safetensors(self.here / f"{what}.safetensors")[1]
            self.assertEqual(read_npy(self.here / f"{what}.npy"),
                             tensors["embedding.weight" if what == "tokens" else "hidden"])
        try:
            import numpy
        except ImportError:
            return
        loaded = numpy.load(self.here / "last.npy")
        self.assertEqual(loaded.tolist(), read_npy(self.here / "last.npy"))

    def test_a_classifier_labels_by_its_hidden_states(self):
        # Of two directions, the last state is where each has read the whole line.
        text = "ab\nc\nabcdefabcdefabcdef\naabbccddeeff\n"
        for pooling in ("last", "mean"):
            self.train_classifier("--set", f"model.pooling={pooling}",
                                  "--set", "optimizer.learning_rate=0.1", out=pooling)
            _, weights = self.weights(pooling)
            rows, steps = self.hidden(text, "--what", pooling, out=pooling)
            self.assertEqual(steps, [4, 3, 20, 14])  # <bos> and <eos> too
            labels = run("predict", self.here / pooling, "--json", input=text).stdout.splitlines()
            self.assert_close([softmax(weights, row) for row in rows],
                              [[json.loads(line)["probabilities"][name] for name in ("x", "y")]
                               for line in labels])

    def test_a_line_has_the_same_bits_alone_and_among_others(self):
        lines = LINES + [TEXT[7 * i:9 * i].replace("\n", " ") + "\n" for i in range(1, 40)]
        lines[5] += "\n"
        self.train()
        self.train_classifier("--set", "model.cell=gru", out="classifier")
        for out in ("run", "classifier"):
            for what in ("last", "mean"):
                together, steps = self.hidden("".join(lines), "--what", what, out=out)
                self.assertEqual(together[1], [0.0] * len(together[1]))
                self.assertEqual(steps[1], 0)
                self.assertEqual(len(together), len(lines))
                for i in (0, 1, 2, 4, 8, 20, 44):
                    (alone,), _ = self.hidden(lines[i], "--what", what, out=out)
                    if DEVICE == "cpu":
                        self.assertEqual(alone, together[i], f"line {i}")
                    else:
                        self.assert_close([alone], [together[i]])

    def test_token_embeddings_come_with_their_tokens(self):
        self.train()
        metadata, weights = self.weights()
        result = self.embed("tokens.safetensors", "--what", "tokens")
        self.assertIn("tokens.safetensors: [27, 8]\n", result.stdout)
        written, tensors = read_safetensors(self.here / "tokens.safetensors")
        self.assertEqual(tensors, {"embedding.weight": weights["embedding.weight"]})
        self.assertEqual(written["carousel.vocabulary"], metadata["carousel.vocabulary"])

    def test_it_says_what_it_read_and_wrote(self):
        self.train()
        data = ("--data", self.here / "lines.txt")
        result = self.embed("lines.npy", *data)
        self.assertEqual(result.stdout, f"{self.here}/lines.npy: [6, 16]\n")
        self.assertEqual(result.stderr.splitlines(),
                         ["embed: checkpoint best, step 6",
                          "embed: 2 tokens unknown to the model, read as <unk>",
                          "embed: 1 line of 6 without tokens: zeros"])
        result = json.loads(self.embed("all.safetensors", *data, "--what", "all", "--json").stdout)
        tokens = sum(len(line.rstrip("\n")) for line in LINES)
        self.assertEqual(result, {"checkpoint": "best", "step": 6, "what": "all", "lines": 6,
                                  "file": f"{self.here}/all.safetensors", "shape": [tokens, 16],
                                  "empty_lines": 1, "tokens": tokens, "unknown_tokens": 2})

    def test_mistakes_leave_no_file(self):
        self.train()
        def refused(name, *more, parts, **options):
            before = sorted(self.here.iterdir())
            self.assert_one_line(self.embed(name, *more, status=1, **options), *parts)
            self.assertEqual(sorted(self.here.iterdir()), before)
        data = ("--data", self.here / "lines.txt")
        refused("out.txt", *data, parts=("out.txt", ".safetensors or .npy"))
        refused("none/out.npy", *data, parts=(f"there is no folder {self.here / 'none'}",))
        refused("out.npy", *data, "--what", "all", parts=("--what all", ".safetensors"))
        refused("out.npy", *data, "--what", "tokens", parts=("--data",))
        refused("out.npy", *data, "--what", "first", parts=("first", "last, mean, all or tokens"))
        refused("out.npy", "--data", self.here / "none", parts=("none", "No such"))
        (self.here / "bad.txt").write_bytes(b"ab\nc\xff\n")
        result = self.embed("out.npy", "--data", self.here / "bad.txt", status=1)
        self.assertIn("bad.txt: line 2, byte 4: not UTF-8", result.stderr)
        self.assertFalse([path for path in self.here.iterdir() if "out.npy" in path.name])
        self.embed("out.npy", *data)
        content = (self.here / "out.npy").read_bytes()
        refused("out.npy", *data, parts=("out.npy exists already",))
        self.assertEqual((self.here / "out.npy").read_bytes(), content)

    def test_an_interrupt_leaves_no_file(self):
        self.train()
        command = [CAROUSEL, "embed", self.here / "run", "--out", self.here / "out.npy"]
        (self.here / "long.txt").write_text("the isle of 4\n" * 300000)
        with open(self.here / "long.txt", encoding="utf-8") as long:
            for lines in (long, subprocess.PIPE):  # which take long, or do not come
                process = subprocess.Popen(command, stdin=lines, stderr=subprocess.PIPE, text=True)
                self.assertIn("checkpoint", process.stderr.readline())
                time.sleep(0.3)  # it computes, or waits
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(timeout=60), 130)
                said = process.communicate()[1]
                self.assertEqual(said, f"embed: stopped; {self.here / 'out.npy'} is not written\n")
                self.assertFalse([path for path in self.here.iterdir() if "out.npy" in path.name])


if __name__ == "__main__":
    main()
