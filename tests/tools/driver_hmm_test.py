#!/usr/bin/env python3
"""The driver with a hidden Markov model: fits of several iterations, and hidden states.

    driver_hmm_test.py CAROUSEL cpu [TEST...]
"""

import json
import math
import pathlib
import signal
import struct
import subprocess
import sys
import unittest
from random import Random

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "support"))
import safetensors_file
from driver import CAROUSEL, CLASSIFIER, EXAMPLES, TEXT, DriverCase, main, metrics, run

CONFIG = """
[model]
kind = "hmm"
states = 7
iterations = 12
tolerance = 0.0
block = 200
[data]
text = "text.txt"
tokens = "char"
"""
LINES = "the 7 little ships\n\nsail round the isle\n"


def tables_of(run_folder):
    """Start [S], transition [S][S], emission [S][V] and the text of each token."""
    metadata, tensors = safetensors_file.read(run_folder / "checkpoints/last/model.safetensors")

    def numbers(name):
        dtype, shape, block = tensors[name]
        assert dtype == "F64", dtype
        values = struct.unpack(f"<{len(block) // 8}d", block)
        return [values[i:i + shape[-1]] for i in range(0, len(values), shape[-1])]
    tokens = [line.split("\t")[0].replace("\\s", " ").replace("\\n", "\n")
              for line in metadata["carousel.vocabulary"].splitlines()[1:]]
    return numbers("start")[0], numbers("transition"), list(zip(*numbers("emission"))), tokens


def passes(start, transition, emission, ids):
    """The filtered states of each place, and log p(token | tokens before it) of each."""
    states, filtered, logs = range(len(start)), [], []
    for t, x in enumerate(ids):
        before = start if t == 0 else [sum(filtered[-1][i] * transition[i][j] for i in states)
                                       for j in states]
        now = [before[j] * emission[j][x] for j in states]
        logs.append(math.log(sum(now)))
        filtered.append([share / sum(now) for share in now])
    return filtered, logs


def viterbi(start, transition, emission, ids):
    states, back = range(len(start)), []

    def log(value):
        return math.log(value) if value > 0 else -math.inf
    best = [log(start[j]) + log(emission[j][ids[0]]) for j in states]
    for x in ids[1:]:
        ways = [max((best[i] + log(transition[i][j]), -i) for i in states) for j in states]
        back.append([-i for _, i in ways])
        best = [ways[j][0] + log(emission[j][x]) for j in states]
    path = [max(states, key=lambda j: best[j])]
    for row in reversed(back):
        path.append(row[path[-1]])
    return path[::-1], max(best)


class HmmTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT, "lines.txt": LINES,
             "classifier.toml": CLASSIFIER, "words.tsv": EXAMPLES}

    def states(self, *more, out="run", data=LINES):
        answers = run("predict", self.here / out, "--json", *more, input=data).stdout
        return [json.loads(line) for line in answers.splitlines()]

    def test_a_fit_is_told_line_by_line(self):
        answer = json.loads(self.train("--json").stdout)
        lines = metrics(self.here / "run")
        self.assertEqual([line["step"] for line in lines], list(range(1, 13)))
        self.assertEqual([line["tokens"] for line in lines],
                         [i * (len(TEXT) * 9 // 10) for i in range(1, 13)])
        losses = [line["loss"] for line in lines]
        self.assertLess(losses[-1], losses[0] - 0.05)
        self.assertEqual((answer["end"], answer["step"], answer["steps"], answer["loss"]),
                         ("finished", 12, None, losses[-1]))
        self.assertEqual(answer["best"]["loss"], lines[-1]["validation_loss"])
        self.assertNotIn("validation_loss", lines[-2])
        few = self.train("--set", "model.tolerance=0.05", out="few").stderr
        self.assertLess(len(metrics(self.here / "few")), 12)
        self.assertIn("7 states of", few)
        self.train("--set", "train.seed=9", out="other")
        self.assertNotEqual(metrics(self.here / "other")[-1]["loss"], losses[-1])

    def test_eval_and_score_are_those_of_the_formula(self):
        for more in ((), ("data.unit=line",), ("data.tokens=byte",),
                     ("data.tokens=word", "data.minimum_count=2"), ("data.document_end= ",)):
            with self.subTest(more):
                out = "run" + "".join(more).replace(" ", "")
                self.train("--set", "model.iterations=3",
                           *(part for key in more for part in ("--set", key)), out=out)
                answers = run("score", self.here / out, "--json", "--tokens", "--data",
                              self.here / "lines.txt").stdout.splitlines()
                for line, answer in zip(LINES.splitlines(), map(json.loads, answers), strict=True):
                    if not line:
                        continue
                    result = json.loads(run("eval", self.here / out, "--json", "--data", "-",
                                            input=line + "\n").stdout)
                    self.assertEqual(answer["tokens"], result["tokens"])
                    self.assertAlmostEqual(answer["perplexity"] / result["perplexity"], 1,
                                           delta=1e-6)
                if more not in ((), ("data.unit=line",)):
                    continue
                *tables, tokens = tables_of(self.here / out)
                ids = [tokens.index(c) for c in LINES.splitlines()[0]]
                ids.append(tokens.index("<eos>" if more else "\n"))
                _, logs = passes(*tables, ids)
                given = [s["log_probability"] for s in json.loads(answers[0])["scores"]]
                for ours, theirs in list(zip(given, logs, strict=True))[0 if more else 1:]:
                    self.assertAlmostEqual(ours, theirs, delta=1e-5)

    def test_predict_tells_states(self):
        for more in ((), ("--set", "data.unit=line")):
            out = "run" + str(len(more))
            self.train(*more, out=out)
            *tables, tokens = tables_of(self.here / out)
            texts = LINES.splitlines()
            path = self.states(out=out)
            self.assertEqual(self.states("--what", "path", out=out), path)
            filtered = self.states("--what", "filter", out=out)
            smoothed = self.states("--what", "smooth", out=out)
            plain = run("predict", self.here / out, "--data", self.here / "lines.txt").stdout
            self.assertEqual(plain.splitlines(),
                             [" ".join(map(str, answer["states"])) for answer in path])
            self.assertEqual(len(path), len(texts))
            for text, *answers in zip(texts, path, filtered, smoothed, strict=True):
                self.assertEqual([len(answer["states"]) for answer in answers], [len(text)] * 3)
                if not text:
                    continue
                ids = [tokens.index(c) for c in text] + [tokens.index("<eos>" if more else "\n")]
                states, log_probability = viterbi(*tables, ids)
                self.assertEqual(answers[0]["states"], states[:-1])
                self.assertAlmostEqual(answers[0]["log_probability"], log_probability, delta=1e-9)
                shares, logs = passes(*tables, ids)
                for ours, theirs in zip(answers[1]["probabilities"], shares[:-1], strict=True):
                    for a, b in zip(ours, theirs, strict=True):
                        self.assertAlmostEqual(a, b, delta=1e-12)
                for answer in answers[1:]:
                    self.assertAlmostEqual(answer["log_probability"], sum(logs), delta=1e-9)
                    for row, state in zip(answer["probabilities"], answer["states"]):
                        self.assertAlmostEqual(sum(row), 1, delta=1e-12)
                        self.assertEqual(row[state], max(row))
            self.assertNotEqual(filtered[0]["probabilities"], smoothed[0]["probabilities"])

    def test_generate(self):
        self.train()

        def text(*more):
            return run("generate", self.here / "run", *more).stdout
        self.assertEqual(text("--seed", 4), text("--seed", 4))
        self.assertNotEqual(text("--seed", 4), text("--seed", 5))
        self.assertTrue(text("--prompt", "the 7", "--tokens", 5).startswith("the 7"))
        self.assertEqual(text("--greedy"), text("--top-k", 1, "--seed", 9))
        self.train("--set", "data.unit=line", out="lines")
        lines = run("generate", self.here / "lines", "--count", 5).stdout.splitlines()
        self.assertEqual(len(lines), 5)

    def checkpoint(self, out):
        return (self.here / out / "checkpoints/last/model.safetensors").read_bytes()

    def test_killed_and_stopped_fits_go_on_to_the_same_bits(self):
        self.train(out="whole")
        for how, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
            out = str(how)
            (self.here / "text.txt").write_text(TEXT * 250)  # long enough to be stopped
            if how == signal.SIGKILL:
                self.train(out="long")
            command = [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / out,
                       "--threads", "2"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                for line in process.stderr:
                    if "step 2: loss" in line:
                        process.send_signal(how)
                        break
                rest = process.stderr.read()
            self.assertEqual(process.returncode, code, rest)
            if how == signal.SIGINT:
                self.assertIn("saved; to go on:\n  carousel resume", rest)
            self.assertLess(len(metrics(self.here / out)), 12)
            result = json.loads(run("resume", self.here / out, "--json").stdout)
            self.assertEqual((result["end"], result["step"]), ("finished", 12))
            self.assertEqual([line["loss"] for line in metrics(self.here / out)],
                             [line["loss"] for line in metrics(self.here / "long")])
            _, ours = safetensors_file.read(self.here / out / "checkpoints/last/model.safetensors")
            _, theirs = safetensors_file.read(self.here / "long/checkpoints/best/model.safetensors")
            self.assertEqual(ours, theirs)

    def test_more_iterations(self):
        self.train("--set", "model.iterations=20", out="whole")
        self.train("--set", "model.iterations=5")
        self.assertIn("is fitted; there is nothing to go on with",
                      run("resume", self.here / "run").stderr)
        self.assertIn("resumed with model.iterations is 20, was 5",
                      run("resume", self.here / "run", "--set", "model.iterations=20").stderr)
        self.assertEqual([line["loss"] for line in metrics(self.here / "run")],
                         [line["loss"] for line in metrics(self.here / "whole")])
        row, = json.loads(run("runs", self.here / "run", "--json").stdout)
        self.assertEqual((row["step"], row["steps"], row["best_metric"]), (20, None, "loss"))
        models = {m["kind"]: m for m in json.loads(run("models", "--json").stdout)["models"]}
        self.assertEqual(models["hmm"]["commands"], ["train", "eval", "generate", "score", "predict"])

    def test_mistakes(self):
        for more, parts in (
                (("--set", "model.states=0"), ("model.states", "1 to 16384")),
                (("--set", "model.smoothing=-1"), ("model.smoothing", "0")),
                (("--set", "model.state=5"), ("model.state", "states")),
                (("--set", "data.kind=labelled"), ("text",)),
                (("--device", "cuda"), ("run.device is cuda", "model.kind = hmm runs on the CPU")),
                (("--explain",), ("--explain", "fitted"))):
            with self.subTest(more):
                command = [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run"]
                result = subprocess.run([*command, *more], capture_output=True, text=True)
                self.assertEqual(result.returncode, 1)
                self.assert_one_line(result, *parts)
        self.train()
        for command, *more in (("compare",), ("embed", "--out", "x.npy")):
            refused = run(command, self.here / "run", *more, status=1)
            self.assert_one_line(refused, f"{command}: not for model.kind = hmm", "predict")
        self.assert_one_line(run("predict", self.here / "run", "--what", "best", status=1,
                                 input=LINES), "--what is best, expected path, filter or smooth")
        self.assert_one_line(run("resume", self.here / "run", "--set", "model.states=3", status=1),
                             "model.states is 3 now", "with 7")
        run("train", self.here / "classifier.toml", "--out", self.here / "classifier")
        self.assert_one_line(run("predict", self.here / "classifier", "--what", "path", status=1,
                                 input="ab\n"), "--what is of hidden states", "classifier")
        weights = self.here / "run/checkpoints/last/model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-9:] = b"\xff" * 9
        weights.write_bytes(content)
        self.assert_one_line(run("score", self.here / "run", "--checkpoint", "last", status=1,
                                 input=LINES), "damaged")


# The keys that touch each letter's, with the same shift, as far as they are letters.
KEYS = {"a": "qwsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc",
        "g": "ftyhbv", "h": "gyujnb", "i": "ujko", "j": "huikmn", "k": "jiolm", "l": "kop",
        "m": "njk", "n": "bhjm", "o": "iklp", "p": "ol", "q": "wa", "r": "edft", "s": "awedxz",
        "t": "rfgy", "u": "yhji", "v": "cfgb", "w": "qase", "x": "zsdc", "y": "tghu", "z": "asx"}
BIBLE = pathlib.Path("/usr/bin/bible")
SPELLER = """
[model]
kind = "hmm"
emission = "keyboard"
typo_probability = 0.1
[data]
text = "kjv.txt"
tokens = "char"
"""


def typed(text, probability, random):
    """The text with one of the keys beside instead of a letter's, now and then."""
    letters = []
    for letter in text:
        beside = KEYS.get(letter.lower())
        if beside and random.random() < probability:
            slip = random.choice(beside)
            letter = slip.upper() if letter.isupper() else slip
        letters.append(letter)
    return "".join(letters)


class SpellerTest(DriverCase):
    FILES = {"config.toml": SPELLER}

    def verses(self, passage):
        answer = subprocess.run([BIBLE, "-f", passage], capture_output=True, text=True, check=True)
        return [line.split(" ", 1)[1] for line in answer.stdout.splitlines()]

    @unittest.skipUnless(BIBLE.exists(), "SKIPPED: package bible-kjv is not installed")
    def test_it_corrects_more_letters_than_it_breaks(self):
        (self.here / "kjv.txt").write_text("\n".join(self.verses("Gen1:1-Mal4:6")) + "\n")
        self.train()
        meant = self.verses("Mark1:1-Mark16:20")
        random = Random(1)
        text = [typed(line, 0.1, random) for line in meant]
        gained = {}
        for what in ("path", "smooth"):
            answer = run("predict", self.here / "run", "--what", what,
                         input="\n".join(text) + "\n").stdout.splitlines()
            self.assertEqual([len(line) for line in answer], [len(line) for line in meant])
            letters = [(m, t, a) for lines in zip(meant, text, answer, strict=True)
                       for m, t, a in zip(*lines, strict=True) if m.isalpha()]
            wrong = sum(t != m for m, t, a in letters)
            corrected = sum(t != m == a for m, t, a in letters)
            broken = sum(t == m != a for m, t, a in letters)
            told = f"{what}: {len(letters)} letters, {wrong} wrong, {corrected} corrected, {broken} broken"
            print(told, file=sys.stderr)
            self.assertGreater(wrong, 0.09 * len(letters))
            self.assertGreater(corrected, 4 * broken, told)
            gained[what] = corrected - broken
        self.assertGreater(gained["smooth"], gained["path"], "it makes the fewest mistakes expected")

    def test_it_tells_what_was_meant_in_text(self):
        (self.here / "kjv.txt").write_text("the cat sat on the mat\na cat and a hat\n" * 50)
        for more in ((), ("--set", "data.unit=line"), ("--set", "data.tokens=byte")):
            with self.subTest(more):
                out = "run" + "".join(more[1:])
                told = self.train(*more, "--set", "model.states=9", out=out).stderr
                self.assertIn("model.states = 9 has no effect: model.emission is keyboard", told)
                typed_text = "the cst sat on tge mat\n\na cat"
                answer = run("predict", self.here / out, input=typed_text).stdout
                self.assertEqual(answer, "the cat sat on the mat\n\na cat\n")
                line = json.loads(run("predict", self.here / out, "--what", "smooth", "--json",
                                      input="a cst\n").stdout)
                self.assertEqual(line["text"], "a cat")
                self.assertEqual(len(line["probabilities"]), 5)
                self.assertEqual(len(set(line["states"])), 4)
                self.assertIn("there is nothing to go on with", run("resume", self.here / out).stderr)

    def test_it_simulates_a_typist(self):
        text = "the cat sat on the mat\na cat and a hat\n" * 50
        (self.here / "kjv.txt").write_text(text)
        pairs = {text[i:i + 2] for i in range(len(text) - 1)}
        for probability, has_slips in ((0, False), (0.5, True)):
            out = f"run{probability}"
            self.train("--set", f"model.typo_probability={probability}", "--set",
                       "model.smoothing=0", out=out)
            written = run("generate", self.here / out, "--tokens", 300, "--prompt", "t").stdout
            new = [written[i:i + 2] for i in range(299) if written[i:i + 2] not in pairs]
            self.assertEqual(bool(new), has_slips, new)

    def test_mistakes(self):
        (self.here / "kjv.txt").write_text("the cat sat on the mat\n")
        for more, parts in (
                ("data.tokens=word", ("model.emission is keyboard", "data.tokens is word", "char")),
                ("model.typo_probability=1", ("model.typo_probability", "below 1")),
                ("model.emission=mouse", ("model.emission", "learnt", "keyboard"))):
            self.assert_one_line(self.train("--set", more, status=1), *parts)


if __name__ == "__main__":
    main()
