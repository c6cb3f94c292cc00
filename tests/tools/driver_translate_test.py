#!/usr/bin/env python3
"""The driver with a model that translates lines: train, predict, and the mistakes people make.

    driver_translate_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import pathlib
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import DriverCase, main, metrics, on_cpu_alone, run

CONFIG = """
[model]
kind = "transformer_seq2seq"
layers = 1
heads = 2
embed = 16
dropout = 0
[data]
kind = "pairs"
text = "pairs.tsv"
tokens = "word"
minimum_count = 2
train_fraction = 0.8
[train]
steps = 30
tokens_per_batch = 48
report_every = 10
evaluate_every = 15
save_every = 15
[optimizer]
kind = "adam"
learning_rate = 2e-2
[schedule]
kind = "inverse_sqrt"
warm_up = 5
"""
WORDS = dict(one="un", two="deux", three="trois", four="quatre", five="cinq", six="six")
SOURCES = [" ".join(list(WORDS)[(n * k + k) % 6] for k in range(1, 2 + n % 5)) for n in range(60)]
PAIRS = "".join(f"{s}\t{' '.join(WORDS[w] for w in s.split())}\n" for s in SOURCES)
LINES = ["one two", "six", "", "five five five four one", "two three four"]


class DriverTranslateTest(DriverCase):
    FILES = {"config.toml": CONFIG, "pairs.tsv": PAIRS, "lines.txt": "\n".join(LINES) + "\n"}

    @classmethod
    def setUpClass(cls):
        """One run for all tests: training takes long on an emulated device."""
        cls.shared = tempfile.TemporaryDirectory()
        cls.home = pathlib.Path(cls.shared.name)
        for name, content in cls.FILES.items():
            (cls.home / name).write_text(content)
        run("train", cls.home / "config.toml", "--out", cls.home / "run")

    @classmethod
    def tearDownClass(cls):
        cls.shared.cleanup()

    def predict(self, *more, **options):
        return run("predict", self.home / "run", *more, **options)

    def test_training_is_resumed_to_the_same_bits(self):
        self.train("--set", "train.steps=15", out="short")
        self.train("--resume", out="short")
        one, two = ((folder / "checkpoints/last/state.safetensors").read_bytes()
                    for folder in (self.home / "run", self.here / "short"))
        self.assertEqual(one, two)
        lines = metrics(self.home / "run")
        self.assertLess(lines[-1]["validation_loss"], 0.8 * lines[0]["loss"])

    def test_a_line_comes_out_for_each_that_goes_in(self):
        by_file = self.predict("--data", self.here / "lines.txt").stdout
        out = by_file.splitlines()
        self.assertEqual(len(out), len(LINES))
        self.assertEqual(out[LINES.index("")], "")
        self.assertTrue(any(out))
        for line in out:
            self.assertLessEqual(set(line.split()), set(WORDS.values()))
        self.assertEqual(self.predict(input="\n".join(LINES) + "\n").stdout, by_file)
        turned = self.predict(input="\n".join(LINES[::-1]) + "\n").stdout.splitlines()
        self.assertEqual(turned, out[::-1])
        self.assertEqual(self.predict(input="\n\n").stdout, "\n\n")
        # Without its words nothing is left to write but the end: <unk> and <bos> never are.
        wordless = [option for word in WORDS.values() for option in ("--suppress", word)]
        told = json.loads(self.predict(*wordless, "--nbest", 4, "--json", input="one two\n").stdout)
        self.assertEqual([each["text"] for each in told["hypotheses"]], [""])

    @on_cpu_alone
    def test_eval_tells_how_near_translations_are(self):
        self.train()
        asked = ("eval", self.here / "run", "--data", self.here / "pairs.tsv")
        answer = json.loads(run(*asked, "--json").stdout)
        own = self.predict(input="\n".join(SOURCES) + "\n").stdout.splitlines()
        wanted = [line.split("\t")[1] for line in PAIRS.splitlines()]
        exact = sum(a == b for a, b in zip(own, wanted, strict=True)) / len(wanted)
        self.assertGreater(exact, 0)
        self.assertAlmostEqual(answer["exact_match"], exact)
        self.assertEqual((answer["pairs"], answer["beam"]), (len(SOURCES), 4))
        self.assertEqual(answer["tokens"], sum(len(text.split()) + 1 for text in wanted))
        self.assertLess(0, answer["chrf"])
        self.assertLess(0, answer["token_accuracy"])
        self.assertLessEqual(answer["token_accuracy"], 1)
        self.assertIn("validation_token_accuracy", metrics(self.home / "run")[-1])
        told = run(*asked, "--beam", 1).stdout.splitlines()
        self.assertIn(f"per token, {100 * answer['token_accuracy']:.1f} % of them the likeliest", told[0])
        self.assertIn(f"60 pairs, {answer['tokens']} tokens: {answer['nats_per_token']:.4f} nats", told[0])
        self.assertIn("translated with a beam of 1: BLEU ", told[1])
        self.assert_one_line(run(*asked, "--beam", 0, "--json", status=1), "beam is 0")
        # Targets that are what the model writes, with blanks and another column behind: all are right.
        lines = "".join(f"{s}\t{t}\tmore\n" for s, t in zip(SOURCES, own) if t)
        (self.here / "own.tsv").write_text(lines)
        perfect = json.loads(run("eval", self.here / "run", "--data", self.here / "own.tsv",
                                 "--json").stdout)
        self.assertEqual(perfect["exact_match"], 1)
        self.assertAlmostEqual(perfect["chrf"], 100)
        self.assertEqual(perfect["brevity_penalty"], 1)

    @on_cpu_alone
    def test_models_tells_that_translators_predict(self):
        models = json.loads(run("models", "--json").stdout)["models"]
        able = {model["kind"] for model in models if "predict" in model["commands"]}
        self.assertLessEqual({"seq2seq", "transformer_seq2seq"}, able)

    @on_cpu_alone
    def test_attention_is_looked_at(self):
        self.train()
        def pictures(*more):
            answer = run("inspect", "attention", self.here / "run", "--json", *more).stdout
            return {picture["title"]: picture for picture in json.loads(answer)["pictures"]}
        source = "one two three"
        own = self.predict(input=source + "\n").stdout.split()
        seen = pictures("--source", source, "--out", self.here / "seen.svg")
        self.assertIn("</svg>", (self.here / "seen.svg").read_text())
        self.assertEqual(list(seen), [f"{block}, head {head}" for block in (
            "encoder layer 0, self-attention", "decoder layer 0, self-attention",
            "decoder layer 0, attention") for head in range(2)])
        cross = seen["decoder layer 0, attention, head 0"]
        self.assertEqual(cross["rows"], [*own, "<eos>"])
        self.assertEqual(cross["columns"], [*source.split(), "<eos>"])
        self.assertEqual(seen["decoder layer 0, self-attention, head 1"]["rows"], ["<bos>", *own])
        for picture in seen.values():
            for row in picture["weights"]:
                self.assertAlmostEqual(sum(row), 1, delta=1e-5)
        # The mean of the heads is the alignment that a translation tells.
        answer = json.loads(self.predict("--json", input=source + "\n").stdout)["hypotheses"][0]
        heads = [seen[f"decoder layer 0, attention, head {head}"]["weights"] for head in range(2)]
        for told, one, other in zip(answer["alignment"], *heads, strict=True):
            for a, b, c in zip(told, one, other, strict=True):
                self.assertAlmostEqual(a, (b + c) / 2, delta=1e-4)
        given = pictures("--source", source, "--target", "six un", "--only", "layer 0, attention")
        self.assertEqual(len(given), 2)
        self.assertEqual(next(iter(given.values()))["rows"], ["six", "un", "<eos>"])

    @on_cpu_alone
    def test_several_translations_have_scores(self):
        best = self.predict("--data", self.here / "lines.txt").stdout.splitlines()
        rows = [line.split("\t") for line in
                self.predict("--data", self.here / "lines.txt", "--nbest", 3).stdout.splitlines()]
        for number, text in enumerate(LINES, start=1):
            own = [(float(score), target) for n, score, target in rows if n == str(number)]
            if not text:
                self.assertEqual(own, [])
                continue
            self.assertEqual(len({target for _, target in own}), 3)
            self.assertEqual(own[0][1], best[number - 1])
        greedy = self.predict("--data", self.here / "lines.txt", "--beam", 1, "--nbest", 1).stdout
        self.assertEqual(len(greedy.splitlines()), 4)

    @on_cpu_alone
    def test_translations_are_drawn(self):
        lines = ("--data", self.here / "lines.txt")
        def drawn(seed, *more):
            return self.predict(*lines, "--temperature", 1.5, "--seed", seed, *more).stdout
        self.assertEqual(drawn(1), drawn(1))
        self.assertGreater(len({drawn(seed) for seed in range(4)}), 1)
        self.assertEqual(self.predict(*lines, "--top-k", 1).stdout,
                         self.predict(*lines, "--beam", 1).stdout)
        found = [json.loads(line)["hypotheses"] for line in drawn(2, "--top-p", 0.9, "--json").splitlines()]
        self.assertEqual([len(each) for each in found], [1, 1, 0, 1, 1])
        self.assertEqual([each[0]["text"] if each else "" for each in found],
                         drawn(2, "--top-p", 0.9).splitlines())
        for line in drawn(3, "--suppress", "six", "--suppress", "<eos>", "--tokens", 4).splitlines():
            self.assertNotIn("six", line)
            self.assertIn(len(line.split()), (0, 4))

    def test_json_tells_scores_and_alignment(self):
        options = ("--nbest", 2, "--length-penalty", 1, "--json")
        lines = [json.loads(line) for line in
                 self.predict("--data", self.here / "lines.txt", *options).stdout.splitlines()]
        self.assertEqual([line["source"] for line in lines], LINES)
        self.assertEqual(lines[2]["hypotheses"], [])
        for line in lines[:2] + lines[3:]:
            self.assertEqual(line["source_tokens"], line["source"].split() + ["<eos>"])
            self.assertEqual(len(line["hypotheses"]), 2)
            for found in line["hypotheses"]:
                words = [token for token in found["tokens"] if token != "<eos>"]
                self.assertEqual(found["text"], " ".join(words))
                self.assertEqual(found["ended"], found["tokens"][-1] == "<eos>")
                self.assertAlmostEqual(found["score"], found["log_probability"] /
                                       ((5 + len(found["tokens"])) / 6))
                self.assertEqual(len(found["alignment"]), len(found["tokens"]))
                for row in found["alignment"]:
                    self.assertEqual(len(row), len(line["source_tokens"]))
                    self.assertAlmostEqual(sum(row), 1, places=4)
        plain = self.predict("--data", self.here / "lines.txt", "--json").stdout.splitlines()
        self.assertEqual({len(json.loads(line)["hypotheses"]) for line in plain}, {0, 1})

    @on_cpu_alone
    def test_what_is_suppressed_is_not_written_and_unknown_words_are_told(self):
        args = ("--data", self.here / "lines.txt", "--tokens", 4)
        out = self.predict(*args, "--suppress", "six", "--suppress", "<eos>").stdout.splitlines()
        for line in out:
            self.assertNotIn("six", line)
            self.assertIn(len(line.split()), (0, 4))
        self.assertIn("1 ", self.predict(input="one seventeen\n").stderr)
        self.assertIn("<unk>", self.predict(input="one seventeen\n").stderr)

    @on_cpu_alone
    def test_mistakes_are_one_line(self):
        for options, part in ((("--beam", 0), "the beam is 0, expected 1 to 1000"),
                              (("--beam", 2, "--nbest", 3), "is 3, expected 1 to the beam, 2"),
                              (("--length-penalty", -1), "length penalty is -1"),
                              (("--tokens", 0), "--tokens is 0, expected 1 or more"),
                              (("--suppress", "no-word"), "--suppress no-word: the model has no such"),
                              (("--temperature", 0), "--temperature is 0, expected more than 0"),
                              (("--top-p", 2), "--top-p is 2, expected more than 0"),
                              (("--top-k", -1), "--top-k is -1, expected 0 or more"),
                              (("--top-k", 2, "--beam", 2), "--beam and --temperature, --top-k and"),
                              (("--top-k", 2, "--nbest", 1), "--nbest and --temperature, --top-k"),
                              (("--seed", 2), "--seed is for --temperature, --top-k and --top-p"),
                              (("--what", "path"), "--what is of hidden states")):
            self.assert_one_line(self.predict("--data", self.here / "lines.txt", *options, status=1),
                                 part)
        both = self.train("--set", "train.steps=1", "--set", "train.batch=4", out="both").stderr
        self.assertIn("train.batch = 4 has no effect: train.tokens_per_batch is given", both)


if __name__ == "__main__":
    main()
