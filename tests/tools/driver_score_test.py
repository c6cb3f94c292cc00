#!/usr/bin/env python3
"""The driver on lines of text, one by one: score; and what eval says.

    driver_score_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import math
import pathlib
import re
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import CAROUSEL, CLASSIFIER, DEVICE, EXAMPLES, SMALL_CONFIG, TEXT, DriverCase, main, run

LINES = ["the 7 little ships\n", "\n", "s\n", "sail\u00e9 \u4e16\n", "round the isle"]


class DriverScoreTest(DriverCase):
    FILES = {"config.toml": SMALL_CONFIG, "text.txt": TEXT, "lines.txt": "".join(LINES),
             "words.tsv": EXAMPLES}

    def score(self, *more, out="run", **options):
        return run("score", self.here / out, *more, **options)

    def scores(self, text, *more, out="run"):
        lines = self.score("--json", *more, out=out, input=text).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def train_classifier(self):
        (self.here / "config.toml").write_text(CLASSIFIER)
        self.train(out="classifier")
        return self.here / "classifier"

    def test_a_line_comes_out_for_each_that_goes_in(self):
        self.train()
        text = self.score("--data", self.here / "lines.txt").stdout
        self.assertEqual(self.score(input="".join(LINES)).stdout, text)
        self.assertEqual(self.score("--data", "-", input="".join(LINES)).stdout, text)
        scores = self.scores("".join(LINES))
        self.assertEqual([s["tokens"] for s in scores], [18, 0, 1, 7, 13])
        self.assertEqual([s["unknown_tokens"] for s in scores], [0, 0, 0, 2, 0])
        self.assertIsNone(scores[1]["perplexity"])
        self.assertEqual(scores[1]["log_probability"], 0)
        for score, line in zip(scores, text.splitlines(), strict=True):
            nats, tokens, perplexity, unknown = line.split("\t")
            self.assertAlmostEqual(float(nats), score["log_probability"], delta=1e-4)
            self.assertEqual((int(tokens), int(unknown)), (score["tokens"], score["unknown_tokens"]))
            if score["tokens"] == 0:
                self.assertEqual(perplexity, "-")
                continue
            self.assertAlmostEqual(float(perplexity), score["perplexity"], delta=1e-3)
            self.assertAlmostEqual(score["perplexity"],
                                   math.exp(-score["log_probability"] / score["tokens"]), places=6)

    def test_a_line_scores_what_eval_says_of_it_alone(self):
        for unit in ("stream", "line"):
            self.train("--set", f"data.unit={unit}", out=unit)
            for line in (LINES[0], LINES[3], LINES[4], TEXT[:90].replace("\n", " ") + "\n"):
                (self.here / "one.txt").write_text(line)
                result = json.loads(run("eval", self.here / unit, "--data", self.here / "one.txt",
                                        "--json").stdout)
                score, = self.scores(line, out=unit)
                self.assertEqual(score["tokens"], result["tokens"])
                self.assertEqual(score["tokens"],
                                 len(line) + (0 if line[-1] == "\n" else 1) if unit == "line"
                                 else len(line) - 1)
                self.assertAlmostEqual(score["perplexity"] / result["perplexity"], 1, places=5)

    def test_tokens_are_shown_with_their_log_probabilities(self):
        self.train("--set", "data.unit=line")
        score, empty = self.scores("a \n\n", "--tokens")
        self.assertEqual([s["token"] for s in score["scores"]], ["a", " ", "<eos>"])
        self.assertAlmostEqual(sum(s["log_probability"] for s in score["scores"]),
                               score["log_probability"])
        self.assertEqual(empty["scores"], [])
        fields = self.score("--tokens", input="a \n").stdout.rstrip("\n").split("\t")
        self.assertEqual(fields[4::2], ["a", "\\s", "<eos>"])
        for field, token in zip(fields[5::2], score["scores"], strict=True):
            self.assertAlmostEqual(float(field), token["log_probability"], delta=1e-4)

        self.train("--set", "data.tokens=byte", out="bytes")  # a stream; not UTF-8 alone
        score, = self.scores("s\u00e9\n", "--tokens", out="bytes")
        self.assertEqual([s["token"] for s in score["scores"]], ["s", "\\xC3", "\\xA9", "\\n"])
        self.assertIsNone(score["scores"][0]["log_probability"])
        text = self.score("--tokens", out="bytes", input="s\n").stdout
        self.assertEqual(text.split("\t")[4:7], ["s", "-", "\\n"])

    def test_an_answer_comes_before_the_next_line_is_written(self):
        self.train()
        command = [CAROUSEL, "score", self.here / "run", "--device", DEVICE, "--threads", "1"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) as process:
            answers = []
            for line in LINES[:4]:
                process.stdin.write(line)
                process.stdin.flush()
                answers.append(process.stdout.readline())
            process.stdin.close()
        together = self.score(input="".join(LINES[:4])).stdout
        if DEVICE == "cpu":  # the same bits
            self.assertEqual("".join(answers), together)
        self.assertEqual(len(answers), len(together.splitlines()))

    def test_the_best_checkpoint_is_read_unless_another_is_named(self):
        self.train("--set", "train.keep=3")
        checkpoints = self.here / "run/checkpoints"
        (checkpoints / "best").unlink()
        (checkpoints / "best").symlink_to("step-3")
        lines = ("--data", self.here / "lines.txt")
        for command in (("eval", *lines), ("score", *lines), ("generate", "--tokens", 5)):
            with self.subTest(command[0]):
                def output(*more, path=self.here / "run"):
                    result = run(command[0], path, *command[1:], *more)
                    return result.stdout, result.stderr.splitlines()[0]
                best, last = output(), output("--checkpoint", "last")
                self.assertEqual(best[1], f"{command[0]}: checkpoint best, step 3")
                self.assertEqual(last[1], f"{command[0]}: checkpoint last, step 6")
                self.assertEqual(output("--checkpoint", "step-3")[0], best[0])
                self.assertEqual(output(path=checkpoints / "step-6")[0], last[0])
                refused = run(command[0], self.here / "run", *command[1:], "--checkpoint", "stp",
                              status=1)
                self.assert_one_line(refused, "'stp'", "last, best, step-3, step-6")
        for command in (("eval", *lines), ("generate", "--tokens", 5)):
            result = json.loads(run(command[0], self.here / "run", *command[1:], "--json").stdout)
            self.assertEqual((result["checkpoint"], result["step"]), ("best", 3))

    def test_only_answers_count(self):
        self.train("--set", "data.unit=line", "--set", "data.answer_after=f")  # "... round the isle of 4"
        line = "the 7 isle of 1\n"
        result = json.loads(run("eval", self.here / "run", "--data", "-", "--json", input=line).stdout)
        score, = self.scores(line)
        self.assertEqual((result["tokens"], score["tokens"]), (3, 3))  # " 1", <eos>
        self.assertAlmostEqual(score["perplexity"] / result["perplexity"], 1, places=5)
        self.assertIsNone(result["bits_per_character"])
        self.assert_one_line(run("eval", self.here / "run", "--data", "-", input="the 7\n", status=1),
                             "line 1 lacks the token of data.answer_after")

    def test_eval_reads_standard_input(self):
        self.train()
        file = run("eval", self.here / "run", "--data", self.here / "text.txt").stdout
        self.assertEqual(run("eval", self.here / "run", "--data", "-", input=TEXT).stdout, file)
        self.assert_one_line(run("eval", self.here / "run", "--data", "-", input="", status=1),
                             "standard input", "empty")

    def test_a_model_of_words_tells_perplexity_and_the_share_of_unknown_words(self):
        talk = self.train("--set", "data.tokens=word", "--set", "data.minimum_count=2").stderr
        words = TEXT.replace("\n", " <eos> ").split()  # as tokens = "word" has it unless told otherwise
        unknown = sum(words.count(word) == 1 for word in words)
        shares = re.search(r"<unk>: ([\d.]+) % of those to train on, ([\d.]+) % of those to validate",
                           talk).groups()
        cut = len(words) * 9 // 10
        for share, part in zip(shares, (words[:cut], words[cut:]), strict=True):
            expected = sum(words.count(word) == 1 for word in part) / len(part)
            self.assertAlmostEqual(float(share), 100 * expected, delta=0.006)
        for loss, perplexity in re.findall(r"loss ([\d.]+) nats per token, perplexity ([\d.]+)", talk):
            self.assertAlmostEqual(float(perplexity) / math.exp(float(loss)), 1, delta=0.001)
        self.assertEqual(talk.count(", perplexity "), 3)  # two evaluations, and the best

        data = ("eval", self.here / "run", "--data")
        text = run(*data, self.here / "text.txt").stdout
        self.assertIn(f"{100 * unknown / len(words):.2f} % of the tokens are <unk>", text)
        self.assertNotIn("per character", text.splitlines()[0])
        self.assertNotIn("bits per character", text)
        result = json.loads(run(*data, self.here / "text.txt", "--json").stdout)
        self.assertAlmostEqual(result["unknown_share"], unknown / len(words))
        self.assertIsNone(result["bits_per_character"])
        known = " ".join(word for word in words if words.count(word) > 1)
        few = run(*data, "-", input=known + " unheard\n").stdout  # less than one in a hundred
        self.assertIn("% of the tokens are <unk>", few)
        self.assertIn("bits per character", few)
        self.assertNotIn("<unk>", run(*data, "-", input=known + "\n").stdout)
        self.assertNotIn("perplexity", self.train(out="characters").stderr)

    def test_mistakes(self):
        lines = self.here / "lines.txt"
        self.assert_one_line(self.score("--data", lines, out="none", status=1), "none")
        self.train()
        self.assert_one_line(self.score("--data", self.here / "none", status=1), "none", "No such")
        self.assert_one_line(self.score("--data", self.here, status=1), self.here, "directory")
        self.assert_one_line(self.score(input="", status=1), "standard input", "empty")
        (self.here / "bad.txt").write_bytes(b"ab\nc\xff\n")
        self.assertIn("bad.txt: line 2, byte 4: not UTF-8",
                      self.score("--data", self.here / "bad.txt", status=1).stderr)
        refused = run("score", self.train_classifier(), "--data", lines, status=1)
        self.assert_one_line(refused, "score: not for model.kind = classifier", "predict")


if __name__ == "__main__":
    main()
