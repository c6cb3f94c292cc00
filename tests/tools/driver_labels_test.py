#!/usr/bin/env python3
"""The driver with a model that labels lines: train, eval, predict, and the mistakes people make.

    driver_labels_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import DEVICE, DriverCase, main, metrics, run

CONFIG = """
[model]
kind = "classifier"
cell = "gru"
embed = 8
hidden = 16
layers = 1
pooling = "mean"
[data]
kind = "labelled"
text = "words.tsv"
tokens = "char"
train_fraction = 0.8
[train]
steps = 30
batch = 8
report_every = 10
evaluate_every = 10
[optimizer]
kind = "adamw"
learning_rate = 2e-2
"""
LETTERS = {"greek": "abgdez", "latin": "cfhjlq", "runic": "ouvwkr"}
LABELS = sorted(LETTERS)
EXAMPLES = [(label, "".join(letters[n * k % 6] for k in range(1, 2 + n % 9)))
            for n in range(20) for label, letters in LETTERS.items()]
LINES = "".join(text + "\n" for _, text in EXAMPLES)


class DriverLabelsTest(DriverCase):
    FILES = {"config.toml": CONFIG, "lines.txt": LINES,
             "words.tsv": "".join(f"{label}\t{text}\n" for label, text in EXAMPLES)}

    def predict(self, *more, **options):
        return run("predict", self.here / "run", *more, **options)

    def labelled(self, text):
        """What comes out for each line of a text: [label, probability]."""
        lines = self.predict(input=text).stdout.splitlines()
        for line in lines:
            self.assertRegex(line, r"^(greek|latin|runic)\t[01]\.\d{4}$")
        return [line.split("\t") for line in lines]

    def test_training_reports_scores_and_the_first_decides(self):
        talk = self.train().stderr
        self.assertIn("3 labels", talk)
        self.assertIn("48 examples to train on in 7 steps an epoch, 12 to validate", talk)
        self.assertNotIn("tokens", talk)
        lines = metrics(self.here / "run")
        self.assertEqual([l["step"] for l in lines if "validation_accuracy" in l], [10, 20, 30])
        best = max(lines[1:], key=lambda line: line["validation_accuracy"])
        self.assertGreater(best["validation_accuracy"], 0.6)
        self.assertIn(f"best validation accuracy {best['validation_accuracy']:.4f}", talk)
        for line in lines[1:]:
            self.assertLessEqual(0, line["validation_macro_f1"])
            self.assertGreater(line["validation_loss"], 0)

    def test_resuming_continues_to_the_same_bits(self):
        self.train()
        self.train("--set", "train.steps=10", out="short")
        self.train("--resume", out="short")
        one, two = ((self.here / n / "checkpoints/last/state.safetensors").read_bytes()
                    for n in ("run", "short"))
        self.assertEqual(one, two)

    def test_eval_and_predict_are_of_one_mind(self):
        self.train()
        data = ("eval", self.here / "run", "--data", self.here / "words.tsv")
        result = json.loads(run(*data, "--json").stdout)
        matrix = result["confusion"]
        self.assertEqual((result["examples"], result["labels"]), (60, LABELS))
        self.assertEqual([sum(row) for row in matrix], [20, 20, 20])
        right = [matrix[i][i] for i in range(3)]
        self.assertAlmostEqual(result["accuracy"], sum(right) / 60)
        f1 = [2 * right[i] / (20 + sum(row[i] for row in matrix)) for i in range(3)]
        self.assertAlmostEqual(result["macro_f1"], sum(f1) / 3)
        text = run(*data).stdout.splitlines()
        self.assertRegex(text[0], rf"^60 examples: accuracy {result['accuracy']:.4f}, macro_f1 .*, "
                                  rf"loss {result['loss']:.4f} nats per example$")
        self.assertEqual([line.split() for line in text[2:]],
                         [LABELS] + [[l, *map(str, row)] for l, row in zip(LABELS, matrix)])

        answers = self.labelled(LINES)
        counts = [[0] * 3 for _ in LABELS]
        for (truth, _), (label, _) in zip(EXAMPLES, answers, strict=True):
            counts[LABELS.index(truth)][LABELS.index(label)] += 1
        self.assertEqual(counts, matrix)

    def test_predict_reads_a_file_or_standard_input_and_writes_json(self):
        self.train()
        by_input = self.predict(input=LINES).stdout
        self.assertEqual(self.predict("--data", self.here / "lines.txt").stdout, by_input)
        self.assertEqual(self.predict("--data", "-", input=LINES).stdout, by_input)
        lines = self.predict("--json", input=LINES).stdout.splitlines()
        for line, (label, probability) in zip(lines, self.labelled(LINES), strict=True):
            answer = json.loads(line)
            self.assertEqual(sorted(answer["probabilities"]), LABELS)
            self.assertAlmostEqual(sum(answer["probabilities"].values()), 1)
            self.assertEqual(answer["label"], label)
            self.assertEqual(answer["probability"], max(answer["probabilities"].values()))
            self.assertAlmostEqual(answer["probability"], float(probability), delta=1e-4)

    def test_a_line_comes_out_for_each_that_goes_in(self):
        self.train()
        answers = self.labelled("abgd\ncfhj\n")
        self.assertEqual(self.labelled("abgd\ncfhj"), answers)
        self.assertEqual(self.labelled("cfhj\nabgd\n"), answers[::-1])
        self.assertEqual(len(self.labelled("abgd\r\n\r\ncfhj\r\n")), 3)  # \r is a character
        odd = self.predict(input="abgd\nc\u00e9\u4e16\n")
        self.assertEqual(len(odd.stdout.splitlines()), 2)
        self.assertIn("2 tokens unknown", odd.stderr)
        for text, parts in (("abgd\n\ncfhj\n", ("line 2", "empty")), ("\n", ("line 1", "empty")),
                            ("", ("standard input", "empty"))):
            with self.subTest(text):
                self.assert_one_line(self.predict(input=text, status=1), *parts)

    def test_mistakes(self):
        refused = self.train("--set", "train.sample_every=5", status=1)
        self.assert_one_line(refused, "train.sample_every", "classifier")
        self.train()
        folder, lines = self.here / "run", self.here / "lines.txt"
        self.assert_one_line(run("generate", folder, status=1), "generate", "classifier", "predict")
        self.assert_one_line(run("eval", folder, "--data", lines, status=1), lines, "line 1", "tab")
        self.assert_one_line(run("eval", folder, "--data", self.here / "words.tsv", "--rows", 4,
                                 status=1), "--rows", "stream")
        self.assert_one_line(self.predict("--data", self.here / "none", status=1), "none")
        (self.here / "more.tsv").write_text("greek\tabg\ngothic\tabg\n")
        self.assert_one_line(run("eval", folder, "--data", self.here / "more.tsv", status=1),
                             "more.tsv", "line 2", "gothic")
        (self.here / "config.toml").write_text(CONFIG.replace('kind = "labelled"\n', ""))
        self.assert_one_line(self.train(status=1, out="text"), "data.kind is text", "label",
                             "classifier", "expected data.kind: labelled")
        self.assertFalse((self.here / "text").exists())

    def test_compare_agrees(self):
        result = run("compare", self.here / "config.toml", "--threads", 1, "--steps", 5,
                     "--devices", f"cpu,{DEVICE}")
        self.assertIn("PASS", result.stdout.splitlines()[0])


if __name__ == "__main__":
    main()
