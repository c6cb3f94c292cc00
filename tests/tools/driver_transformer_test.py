#!/usr/bin/env python3
"""What the driver does with transformers alone: inspect attention, against the same weights computed
here, and windows of evaluation.

    driver_transformer_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import math
import pathlib
import sys
import xml.etree.ElementTree
from array import array

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import SMALL_CONFIG, TEXT, DriverCase, main, on_cpu_alone, run

WIDTH, HEADS, LAYERS = 8, 2, 2
TRANSFORMER = SMALL_CONFIG.replace('"recurrent_lm"', '"transformer_lm"').replace(
    "embed = 8\nhidden = 16", f"embed = {WIDTH}\nheads = {HEADS}\nlayers = {LAYERS}\ncontext = 16")
SVG = "{http://www.w3.org/2000/svg}"


class Weights:
    """What the first layer of a transformer_lm looks at, by its formulas."""

    def __init__(self, model):
        metadata, tensors = safetensors_file.read(model)
        self.tensors = {name: (shape, array("f", block))
                        for name, (_, shape, block) in tensors.items()}
        lines = metadata["carousel.vocabulary"].split("\n")[1:-1]
        self.tokens = [line.split("\t")[0].replace("\\s", " ") for line in lines]

    def rows(self, name):
        (rows, columns), numbers = self.tensors[name]
        return [numbers[i * columns:(i + 1) * columns] for i in range(rows)]

    def vector(self, name):
        return self.tensors[name][1]

    def normalized(self, x):
        mean = sum(x) / len(x)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
        gain, bias = (self.vector(f"transformer.h.0.ln_1.{part}") for part in ("weight", "bias"))
        return [(v - mean) / deviation * g + b for v, g, b in zip(x, gain, bias)]

    def attention(self, text):
        """[head][query][key]"""
        table, positions = self.rows("transformer.wte.weight"), self.rows("transformer.wpe.weight")
        weight, bias = self.rows("transformer.h.0.attn.c_attn.weight"), self.vector(
            "transformer.h.0.attn.c_attn.bias")
        qkv = []
        for t, token in enumerate(text):
            x = self.normalized([a + b for a, b in zip(table[self.tokens.index(token)], positions[t])])
            qkv.append([sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)])
        D = WIDTH // HEADS
        heads = []
        for head in range(HEADS):
            of = lambda part, t: qkv[t][part * WIDTH + head * D:part * WIDTH + (head + 1) * D]
            heads.append([])
            for t in range(len(text)):
                scores = [math.exp(sum(q * k for q, k in zip(of(0, t), of(1, s))) / math.sqrt(D))
                          for s in range(t + 1)]
                heads[-1].append([score / sum(scores) for score in scores] +
                                 [0.0] * (len(text) - t - 1))
        return heads


class DriverTransformerTest(DriverCase):
    FILES = {"config.toml": TRANSFORMER, "text.txt": TEXT}

    def ask(self, *more, **options):
        return run("inspect", "attention", self.here / "run", *more, **options)

    def test_weights_are_those_of_the_model(self):
        self.train()
        text = "the ship"
        answer = json.loads(self.ask("--source", text, "--json").stdout)
        self.assertEqual([picture["title"] for picture in answer["pictures"]],
                         [f"layer {layer}, head {head}" for layer in range(LAYERS)
                          for head in range(HEADS)])
        expected = Weights(self.here / "run/checkpoints/best/model.safetensors").attention(text)
        for picture, head in zip(answer["pictures"], expected):
            self.assertEqual(picture["rows"], list(text))
            self.assertEqual(picture["columns"], list(text))
            for row, wanted in zip(picture["weights"], head, strict=True):
                for a, b in zip(row, wanted, strict=True):
                    self.assertAlmostEqual(a, b, delta=1e-5)

    @on_cpu_alone
    def test_pictures(self):
        self.train()
        text = "a <b> &"
        (self.here / "text.txt").write_text((text + "\n") * 60)
        self.train(out="marks")
        run("inspect", "attention", self.here / "marks", "--source", text, "--out",
            self.here / "a.svg", "--only", "layer 1")
        root = xml.etree.ElementTree.parse(self.here / "a.svg").getroot()
        self.assertEqual(root.tag, f"{SVG}svg")
        cells = [cell for cell in root.iter(f"{SVG}rect") if cell.find(f"{SVG}title") is not None]
        self.assertEqual(len(cells), HEADS * len(text) ** 2)
        titles = [cell.find(f"{SVG}title").text for cell in cells]
        self.assertEqual(titles[0], "a → a: 1.000")
        self.assertEqual(cells[0].get("fill"), "#08306b")
        self.assertTrue(titles[len(text) - 1].startswith("a → &: 0.000"), titles[len(text) - 1])
        self.assertEqual(cells[len(text) - 1].get("fill"), "#ffffff")
        labels = [label.text for label in root.iter(f"{SVG}text")]
        self.assertEqual(labels[:1 + len(text)],
                         ["layer 1, head 0", *(c.replace(" ", "\\s") for c in text)])
        self.assertEqual(self.ask("--source", "ship", "--only", "layer 1").stdout.count("<g "), HEADS)
        told = self.ask("--source", "ship", "--out", self.here / "a.html")
        self.assertIn(f"a.html: {LAYERS * HEADS} pictures", told.stdout)
        page = (self.here / "a.html").read_text()
        self.assertEqual(page.count("<section id="), LAYERS * HEADS)
        self.assertIn('<a href="#p3">layer 1, head 1</a>', page)

    @on_cpu_alone
    def test_training_begins_with_gpt2s_weights(self):
        self.train()
        own = self.here / "run/checkpoints/last/model.safetensors"
        metadata, tensors = safetensors_file.read(own)
        turned = {}
        for name, (dtype, shape, block) in tensors.items():
            if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
                rows, columns = shape
                numbers = array("f", block)
                block = array("f", [numbers[r * columns + c] for c in range(columns)
                                    for r in range(rows)]).tobytes()
                shape = [columns, rows]
            turned[name.removeprefix("transformer.")] = (dtype, shape, block)
        file = self.here / "gpt2.safetensors"
        safetensors_file.write(file, turned)
        self.train("--set", f"model.weights={file}", "--set", "train.steps=1", "--set",
                   "optimizer.learning_rate=0", out="same")
        same = safetensors_file.read(self.here / "same/checkpoints/last/model.safetensors")[1]
        self.assertEqual(same, tensors)
        turned["h.1.attn.c_attn.weight"] = tensors["transformer.h.1.attn.c_attn.weight"]
        safetensors_file.write(file, turned)
        self.assert_one_line(self.train("--set", f"model.weights={file}", out="mixed", status=1),
                             file, "expected all matrices one way")

    def test_what_the_cache_has_is_what_a_prompt_read_anew_has(self):
        self.train()
        def written(prompt, tokens):
            return run("generate", self.here / "run", "--prompt", prompt, "--tokens", tokens,
                       "--greedy").stdout[:-1]  # without the newline behind it
        text = written("the ", 6)
        self.assertEqual(len(text), 10)
        for end in range(4, 10):
            self.assertEqual(written(text[:end], 1), text[:end + 1])

    @on_cpu_alone
    def test_mistakes(self):
        self.train()
        def refused(*arguments, parts):
            with self.subTest(arguments):
                self.assert_one_line(self.ask(*arguments, status=1), *parts)
        refused("--source", "ship", "--out", self.here / "a.png", parts=("a.png", ".svg or .html"))
        refused("--source", "ship", "--only", "layer 7", parts=("--only is 'layer 7'", "4 pictures"))
        refused("--source", "ship", "--target", "ship", parts=("--target", "transformer_lm"))
        refused("--source", "", parts=("--source has no token",))
        refused("--source", "the ship the ship", parts=("17 tokens", "model.context, 16"))
        (self.here / "a.svg").write_text("mine")
        refused("--source", "ship", "--out", self.here / "a.svg", parts=("exists already",))
        self.assertEqual((self.here / "a.svg").read_text(), "mine")
        (self.here / "config.toml").write_text(SMALL_CONFIG)
        self.train(out="recurrent")
        result = run("inspect", "attention", self.here / "recurrent", "--source", "ship", status=1)
        self.assert_one_line(result, "attention", "recurrent_lm")

    @on_cpu_alone
    def test_windows_begin_every_stride(self):
        self.train()
        line = "the little ships sail round the isle"
        (self.here / "line.txt").write_text(line)
        def evaluated(*more):
            return json.loads(run("eval", self.here / "run", "--data", self.here / "line.txt", "--json",
                                  *more).stdout)
        plain, overlapping = evaluated(), evaluated("--stride", 4)
        self.assertEqual((plain["window"], plain["stride"]), (16, 16))
        self.assertEqual((overlapping["window"], overlapping["stride"]), (16, 4))
        self.assertEqual(overlapping, evaluated("--set", "model.stride=4"))
        self.assertGreater(abs(plain["nats_per_token"] - overlapping["nats_per_token"]), 1e-6)
        told = run("eval", self.here / "run", "--data", self.here / "line.txt", "--stride", 4).stdout
        self.assertIn(f"{len(line) - 1} tokens in windows of 16 that begin every 4: ", told)
        for stride, nats in ((16, plain), (4, overlapping)):
            scored = run("score", self.here / "run", "--stride", stride, input=line)
            self.assertIn(f"lines are read in windows of 16 that begin every {stride}", scored.stderr)
            total, tokens = map(float, scored.stdout.split("\t")[:2])
            self.assertAlmostEqual(-total / tokens, nats["nats_per_token"], delta=1e-4)
        for stride, part in ((17, "model.stride is 17"), (-1, "--stride is -1")):
            self.assert_one_line(run("eval", self.here / "run", "--data", self.here / "line.txt",
                                     "--stride", stride, status=1), part)
        (self.here / "config.toml").write_text(SMALL_CONFIG)
        self.train(out="recurrent")
        self.assert_one_line(run("score", self.here / "recurrent", "--stride", 4, input=line, status=1),
                             "model.stride")


if __name__ == "__main__":
    main()
