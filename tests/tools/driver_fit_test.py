#!/usr/bin/env python3
"""The driver with a model that is fitted: the commands are those of all models.

    driver_fit_test.py CAROUSEL cpu [TEST...]
"""

import json
import math
import pathlib
import signal
import subprocess
import sys
import unittest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "support"), str(TESTS / "bench/peers")]
import kneser_ney
from driver import CAROUSEL, SMALL_CONFIG, TEXT, DriverCase, main, metrics, run

CONFIG = """
[model]
kind = "kneser_ney"
order = 4
[data]
text = "text.txt"
tokens = "char"
"""
LINES = "the 7 little ships\n\nsail round the isle\n"


class FitTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT, "lines.txt": LINES, "small.toml": SMALL_CONFIG}

    def eval(self, data, *more, out="run", **options):
        return json.loads(run("eval", self.here / out, "--data", data, "--json", *more,
                              **options).stdout)

    def test_the_loss_is_that_of_the_script(self):
        for tokens in ("char", "byte"):
            self.train("--set", f"data.tokens={tokens}", out=tokens)
            split = len(TEXT) * 9 // 10
            held_out = TEXT[split:]
            (self.here / "held_out.txt").write_text(held_out)
            orders = kneser_ney.train(TEXT[:split], 4)
            choices = 256 if tokens == "byte" else len(set(TEXT)) + 1  # <unk>
            loss = -sum(kneser_ney.log_probability(orders[:min(i, 3) + 1], choices,
                                                   held_out[max(i - 3, 0):i], held_out[i])
                        for i in range(1, len(held_out))) / (len(held_out) - 1)
            result = self.eval(self.here / "held_out.txt", out=tokens)
            self.assertAlmostEqual(result["nats_per_token"] / loss, 1, delta=1e-7)
            self.assertAlmostEqual(result["bits_per_token"], result["nats_per_token"] / math.log(2))
            self.assertAlmostEqual(result["perplexity"], math.exp(result["nats_per_token"]))
            line, = metrics(self.here / tokens)
            self.assertAlmostEqual(line["validation_loss"] / loss, 1, delta=1e-7)
            self.assertEqual((line["step"], line["tokens"]), (1, split))

    def test_lines_score_what_eval_says_of_each(self):
        for more in ((), ("data.unit=line",), ("data.tokens=word", "data.minimum_count=2")):
            out = "run" + "".join(more)
            self.train(*(part for key in more for part in ("--set", key)), out=out)
            answers = run("score", self.here / out, "--json", "--tokens", "--data",
                          self.here / "lines.txt").stdout.splitlines()
            for line, answer in zip(LINES.splitlines(), map(json.loads, answers), strict=True):
                if not line:
                    continue
                result = self.eval("-", out=out, input=line + "\n")
                self.assertEqual(answer["tokens"], result["tokens"])
                self.assertAlmostEqual(answer["perplexity"] / result["perplexity"], 1, delta=1e-6)
                self.assertAlmostEqual(sum(s["log_probability"] or 0 for s in answer["scores"]),
                                       answer["log_probability"])

    def test_generate_follows_its_options(self):
        self.train()

        def text(*more):
            return run("generate", self.here / "run", *more).stdout
        self.assertEqual(text("--seed", 4), text("--seed", 4))
        self.assertNotEqual(text("--seed", 4), text("--seed", 5))
        self.assertTrue(text("--prompt", "the 7", "--tokens", 5).startswith("the 7 li"))
        greedy = text("--prompt", "ship", "--greedy", "--tokens", 20)
        self.assertEqual(greedy, text("--prompt", "ship", "--top-k", 1, "--tokens", 20, "--seed", 9))
        self.assertEqual(greedy, text("--prompt", "ship", "--top-p", 0.01, "--tokens", 20))
        self.assertEqual(greedy, text("--prompt", "ship", "--temperature", 0.01, "--tokens", 20))
        self.assertNotIn("r", text("--prompt", "the ", "--stop", "r")[len("the "):])
        texts = [json.loads(line) for line in text("--count", 3, "--json").splitlines()]
        self.assertEqual(len({t["text"] for t in texts}), 3)
        self.assertEqual([t["step"] for t in texts], [1, 1, 1])
        answers = run("generate", self.here / "run", "--interactive", "--tokens", 4,
                      input="the 7\nsail\n").stdout
        self.assertEqual(len(answers.splitlines()), 2, answers)

    def test_lines_are_written_from_their_begin_to_their_end(self):
        self.train("--set", "data.unit=line")
        for line in run("generate", self.here / "run", "--count", 20).stdout.splitlines():
            self.assertTrue(line.startswith("the "), line)

    def test_the_result_of_train(self):
        result = self.train("--json")
        answer = json.loads(result.stdout)
        line, = metrics(self.here / "run")
        self.assertEqual((answer["end"], answer["step"], answer["steps"], answer["loss"]),
                         ("finished", 1, None, None))
        self.assertEqual(answer["best"]["loss"], line["validation_loss"])
        self.assertIn("4-grams", result.stderr)
        told = self.train("--set", "train.batch=4", "--set", "train.steps=6", out="told").stderr
        self.assertIn("train.steps = 6, train.batch = 4 have no effect", told)

    def test_a_fit_in_little_memory_gives_the_same_tables(self):
        (self.here / "text.txt").write_text(TEXT * 5)  # of more n-grams than 64 KB hold
        self.train()
        self.train("--set", "model.sort_bytes=65536", out="again")

        def tables(out):
            content = (self.here / out / "checkpoints/last/model.safetensors").read_bytes()
            return content[8 + int.from_bytes(content[:8], "little"):]
        self.assertEqual(tables("run"), tables("again"))

    def test_resume_and_runs_and_models(self):
        self.train()
        run("train", self.here / "small.toml", "--out", self.here / "lstm")
        before = (self.here / "run/metrics.jsonl").read_bytes()
        self.assertIn("is fitted; there is nothing to go on with",
                      run("resume", self.here / "run").stderr)
        self.assertEqual((self.here / "run/metrics.jsonl").read_bytes(), before)
        rows = json.loads(run("runs", self.here / "run", self.here / "lstm", "--json").stdout)
        self.assertEqual([(row["step"], row["steps"]) for row in rows], [(1, None), (6, 6)])
        self.assertEqual([row["best_metric"] for row in rows], ["loss", "loss"])
        models = {m["kind"]: m for m in json.loads(run("models", "--json").stdout)["models"]}
        self.assertEqual(models["kneser_ney"]["commands"], ["train", "eval", "generate", "score"])
        copied = self.here / "copied.safetensors"
        copied.write_bytes((self.here / "run/checkpoints/best/model.safetensors").read_bytes())
        self.assertEqual(run("score", copied, input=LINES).stdout,
                         run("score", self.here / "run", input=LINES).stdout)

    def test_an_interrupted_fit_leaves_nothing(self):
        (self.here / "text.txt").write_text(TEXT * 4000)
        command = [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run",
                   "--set", "model.order=8"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            first = process.stderr.readline()
            self.assertIn("to fit to", first)
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        self.assertEqual(process.returncode, 130, rest)
        self.assertIn("stopped before there was a model; nothing is kept", rest)
        self.assertFalse((self.here / "run").exists())

    def test_mistakes(self):
        for more, parts in (
                (("--set", "model.order=9"), ("model.order", "1 to 8")),
                (("--set", "model.hidden=5"), ("model.hidden",)),
                (("--set", "data.kind=labelled"), ("text",)),
                (("--device", "cuda"), ("run.device is cuda", "runs on the CPU")),
                (("--explain",), ("--explain", "fitted"))):
            with self.subTest(more):
                command = [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run"]
                result = subprocess.run([*command, *more], capture_output=True, text=True)
                self.assertEqual(result.returncode, 1)
                self.assert_one_line(result, *parts)
        (self.here / "text.txt").write_text("abc")
        self.assertIn("text.txt: 2 to train on, expected an n-gram of order 4",
                      self.train(status=1).stderr.splitlines()[-1])
        self.assertFalse((self.here / "run").exists())
        (self.here / "text.txt").write_text(TEXT)
        self.train()
        for command, *more in (("compare",), ("predict",), ("embed", "--out", "x.npy")):
            refused = run(command, self.here / "run", *more, status=1)
            self.assert_one_line(refused, f"{command}: not for model.kind = kneser_ney", "score")
        self.assert_one_line(run("resume", self.here / "run", "--set", "model.order=3", status=1),
                             "model.order is 3 now", "with 4")
        weights = self.here / "run/checkpoints/last/model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-9:] = b"\xff" * 9
        weights.write_bytes(content)
        self.assert_one_line(run("score", self.here / "run", input=LINES, status=1), "damaged")


if __name__ == "__main__":
    main()
