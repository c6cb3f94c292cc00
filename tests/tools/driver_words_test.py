#!/usr/bin/env python3
"""The driver with vectors of words: every kind and output of them by the commands of all models.

    driver_words_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import DriverCase, main, metrics, run

CONFIG = """
[model]
kind = "cbow"
embed = 8
window = 2
subsample = 0.05
[data]
text = "text.txt"
tokens = "word"
document_end = "<eos>"
[train]
steps = 8
batch = 2
window = 16
evaluate_every = 4
report_every = 1
save_every = 4
[optimizer]
kind = "sgd"
learning_rate = 0.05
[schedule]
kind = "linear"
final_fraction = 0.1
"""
NGRAM = """
[model]
kind = "ngram_lm"
embed = 8
hidden = 8
embedding_from = "run"
[data]
text = "text.txt"
tokens = "word"
[train]
steps = 1
batch = 2
window = 8
[optimizer]
kind = "sgd"
learning_rate = 0.0
"""
TEXT = "".join(f"the {n % 9} little ships sail round the isle of {n * n % 7}\n" for n in range(90))
OUTPUTS = ("negative_sampling", "hierarchical_softmax", "softmax")
KINDS = ("cbow", "skipgram")


class WordsTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT, "ngram.toml": NGRAM}

    def weights(self, out):
        return safetensors_file.read(self.here / out / "checkpoints/last/model.safetensors")

    def test_every_kind_and_output_trains_and_is_evaluated(self):
        for kind in KINDS:
            for output in OUTPUTS:
                with self.subTest(kind, output=output):
                    out = f"{kind}_{output}"
                    self.train("--set", f"model.kind={kind}", "--set", f"model.output={output}", out=out)
                    lines = metrics(self.here / out)
                    self.assertEqual(len(lines), 8)
                    rates = [line["learning_rate"] for line in lines]
                    self.assertAlmostEqual(rates[-1], 0.005)
                    self.assertAlmostEqual(rates[1] - rates[0], rates[7] - rates[6])
                    result = json.loads(run("eval", self.here / out, "--data",
                                            self.here / "text.txt", "--json").stdout)
                    again = json.loads(run("eval", self.here / out, "--data",
                                           self.here / "text.txt", "--json").stdout)
                    self.assertEqual(result, again)
                    self.assertTrue(0 < lines[-1]["validation_loss"] < 10)

    def test_a_resumed_run_is_the_unbroken_one(self):
        for kind in KINDS:
            more = ("--set", f"model.kind={kind}")
            self.train(*more, out=f"{kind}_whole")
            self.train(*more, "--set", "train.steps=4", "--set", "schedule.kind=constant",
                       out=f"{kind}_other")
            self.train(*more, out=f"{kind}_again")
            _, whole = self.weights(f"{kind}_whole")
            _, again = self.weights(f"{kind}_again")
            self.assertEqual(whole, again)
            constant = (*more, "--set", "schedule.kind=constant")
            self.train(*constant, out=f"{kind}_constant")
            run("resume", self.here / f"{kind}_other", "--set", "train.steps=8")
            self.assertEqual(self.weights(f"{kind}_other")[1], self.weights(f"{kind}_constant")[1])

    def test_other_models_begin_with_the_embedding(self):
        self.train()
        talk = run("train", self.here / "ngram.toml", "--out", self.here / "ngram").stderr
        self.assertIn("embeddings are those of", talk)
        self.assertEqual(self.weights("run")[1]["embedding.weight"],
                         self.weights("ngram")[1]["embedding.weight"])

    def test_embed_gives_the_vectors(self):
        self.train()
        file = self.here / "hidden.safetensors"
        run("embed", self.here / "run", "--out", file, input="the isle\n")
        metadata, weights = self.weights("run")
        words = [line.split("\t")[0] for line in metadata["carousel.vocabulary"].split("\n")[1:-1]]
        row = 4 * 8
        at = words.index("isle") * row  # the last word of the line
        _, shape, hidden = safetensors_file.read(file)[1]["hidden"]
        self.assertEqual(shape[-1], 8)
        self.assertEqual(hidden[:row], weights["embedding.weight"][2][at:at + row])

    def test_phrases_are_joined_and_trained_on(self):
        out = self.here / "joined.txt"
        words = TEXT.split()
        pairs = [pair for line in TEXT.splitlines() for pair in zip(line.split(), line.split()[1:])]

        def score(a, b):
            return (pairs.count((a, b)) - 5) * len(words) / (words.count(a) * words.count(b))

        phrases = [pair for pair in set(pairs) if score(*pair) > 9]
        self.assertIn(("little", "ships"), phrases)
        told = json.loads(run("phrases", self.here / "text.txt", "--out", out, "--threshold", 9,
                              "--json").stdout)
        lines = out.read_text().splitlines()
        self.assertEqual(lines[3], "the 3 little_ships sail_round the isle_of 2")
        self.assertEqual([line.replace("_", " ") for line in lines], TEXT.splitlines())
        self.assertEqual(told, {"file": str(out), "words": len(words), "phrases": len(phrases),
                                "joined": out.read_text().count("_")})
        self.train("--set", f"data.text={out}")
        near = run("inspect", "neighbours", self.here / "run", "little_ships").stdout
        self.assertIn("sail_round", near)
        refused = run("phrases", self.here / "text.txt", "--out", out, status=1)
        self.assert_one_line(refused, "joined.txt exists already")
        for words, said in (((self.here, "--out", self.here / "new"), "not a regular file"),
                            ((self.here / "none", "--out", self.here / "new"), "No such file"),
                            ((out, "--out", self.here / "new", "--discount", -1), "discount is -1"),
                            ((out, "--out", self.here / "no" / "new"), "there is no folder")):
            self.assert_one_line(run("phrases", *words, status=1), said)
            self.assertFalse((self.here / "new").exists())

    def test_mistakes(self):
        refused = self.train("--set", "train.accumulate=2", status=1)
        self.assert_one_line(refused, "train.accumulate is 2", "row-sparse")
        refused = self.train("--set", "model.output=sigmoid", status=1)
        self.assert_one_line(refused, "model.output", "negative_sampling")
        told = self.train("--set", "model.output=softmax", "--set", "model.negatives=7").stderr
        self.assertIn("model.negatives = 7", told)
        refused = run("generate", self.here / "run", "--prompt", "the", status=1)
        self.assert_one_line(refused, "cbow")


if __name__ == "__main__":
    main()
