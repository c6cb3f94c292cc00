#!/usr/bin/env python3
"""What the driver lets a model write: texts, lines, samples of training, a dialogue.

    driver_generate_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import os
import pathlib
import pty
import signal
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import CAROUSEL, DEVICE, DriverCase, main, on_cpu_alone, run

CONFIG = """
[model]
kind = "recurrent_lm"
embed = 8
hidden = 16
[data]
text = "text.txt"
tokens = "char"
[train]
steps = 40
batch = 4
window = 8
[optimizer]
learning_rate = 3e-2
"""
TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(60))
LINES = ("--set", "data.unit=line")


class DriverGenerateTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT}

    def generate(self, *more, **options):
        return run("generate", self.here / "run", *more, **options)

    def texts(self, *more, **options):
        lines = self.generate("--json", *more, **options).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def converse(self, text, *more):
        return self.generate("--interactive", *more, input=text).stdout

    # Several texts.

    def test_count_writes_so_many_lines_each_with_its_own_random_numbers(self):
        self.train(*LINES)
        lines = self.generate("--count", 6, "--seed", 3).stdout.split("\n")
        self.assertEqual(len(lines), 7)
        self.assertEqual(lines.pop(), "")
        self.assertEqual(len(set(lines)), 6)
        self.assertEqual(self.generate("--count", 6, "--seed", 3).stdout.splitlines(), lines)
        texts = self.texts("--count", 6, "--seed", 3)
        self.assertEqual([text["text"] for text in texts], lines)
        self.assertEqual([text["number"] for text in texts], [1, 2, 3, 4, 5, 6])
        self.assertIn("line", {text["end"] for text in texts})
        if DEVICE == "cpu":  # one row has the bits of several
            self.assertEqual(self.generate("--seed", 3).stdout, lines[0] + "\n")

    def test_count_separates_the_texts_of_a_stream(self):
        self.train()
        texts = self.texts("--count", 3, "--prompt", "the ", "--tokens", 20)
        self.assertEqual({text["end"] for text in texts}, {"length"})
        self.assertEqual({len(text["text"]) for text in texts}, {24})
        self.assertEqual(len({text["text"] for text in texts}), 3)
        together = "".join(f"--- text {i + 1} of 3 ---\n{text['text']}\n"
                           for i, text in enumerate(texts))
        self.assertEqual(
            self.generate("--count", 3, "--prompt", "the ", "--tokens", 20).stdout, together)

    # The likeliest token.

    @on_cpu_alone
    def test_accuracy_is_how_often_the_likeliest_token_comes(self):
        line = "the 7 ship"
        (self.here / "line.txt").write_text(line)
        def evaluated(kind, *more, **options):
            return run("eval", self.here / kind, "--data", self.here / "line.txt", "--accuracy", *more,
                       **options)
        for kind, keys in (("recurrent_lm", "hidden = 16"), ("ngram_lm", "hidden = 16\ncontext = 3"),
                           ("transformer_lm", "heads = 2\nlayers = 1\ncontext = 16")):
            config = CONFIG.replace("recurrent_lm", kind).replace("hidden = 16", keys)
            (self.here / "config.toml").write_text(config)
            self.train(out=kind)
            right = sum(run("generate", self.here / kind, "--prompt", line[:end], "--tokens", 1,
                            "--greedy").stdout == line[:end + 1] + "\n" for end in range(1, len(line)))
            self.assertGreater(right, 0)
            told = json.loads(evaluated(kind, "--json").stdout)
            self.assertAlmostEqual(told["token_accuracy"], right / (len(line) - 1))
            self.assertIn(f"per token, {100 * told['token_accuracy']:.1f} % of them the likeliest\n",
                          evaluated(kind).stdout)
        self.assert_one_line(evaluated("transformer_lm", "--beam", 2, status=1),
                             "--beam is of models that translate, and model.kind is transformer_lm")
        (self.here / "config.toml").write_text('[model]\nkind = "kneser_ney"\n[data]\ntext = "text.txt"\n')
        self.train(out="counts")
        self.assert_one_line(evaluated("counts", status=1), "does not tell its likeliest tokens")

    # The likeliest texts.

    def test_beam_writes_the_likeliest_texts(self):
        self.train(*LINES)
        beam = ("--prompt", "the ", "--tokens", 12, "--beam", 5)
        best = self.generate(*beam).stdout
        self.assertTrue(best.startswith("the ") and best.count("\n") == 1)
        texts = self.texts(*beam, "--nbest", 5)
        self.assertEqual(texts[0]["text"] + "\n", best)
        self.assertEqual([text["number"] for text in texts], [1, 2, 3, 4, 5])
        self.assertEqual(self.generate(*beam, "--nbest", 5).stdout,
                         "".join(f"{text['score']:.4f}\t{text['text']}\n" for text in texts))
        ended = [text for text in texts if text["end"] == "line"]
        self.assertEqual(texts[:len(ended)], sorted(ended, key=lambda text: -text["score"]))
        greedy, = self.texts(*beam[:-1], 1)
        self.assertEqual(greedy["text"] + "\n",
                         self.generate("--prompt", "the ", "--tokens", 12, "--greedy").stdout)
        # `score` judges what was found as the search did.
        for text in texts:
            self.assertAlmostEqual(text["score"], text["log_probability"] /
                                   ((5 + text["tokens"]) / 6) ** 0.6, places=5)
        def judged(line):
            scored = json.loads(run("score", self.here / "run", "--tokens", "--json",
                                    input=line + "\n").stdout)["scores"]
            return sum(entry["log_probability"] for entry in scored[len("the "):])
        for text in ended:
            self.assertAlmostEqual(text["log_probability"], judged(text["text"]), places=3)
        without = self.texts(*beam, "--suppress", "i", "--suppress", "s")
        self.assertFalse({"i", "s"} & set(without[0]["text"]))

    def test_beam_of_a_stream(self):
        self.train()
        shown = self.generate("--prompt", "the ", "--tokens", 6, "--beam", 3, "--nbest", 2).stdout
        self.assertRegex(shown, r"\A--- text 1 of 2, score -\d+\.\d{4} ---\nthe (.|\n){6}\n--- text 2 of")
        self.assertEqual({text["end"] for text in self.texts("--tokens", 6, "--beam", 3)}, {"length"})
        for options, part in ((("--greedy",), "--beam and --greedy exclude"),
                              (("--temperature", 0.5), "--beam and --temperature exclude"),
                              (("--top-k", 3), "--beam and --top-k exclude"),
                              (("--top-p", 0.5), "--beam and --top-p exclude"),
                              (("--count", 2), "--beam and --count exclude"),
                              (("--stop", "x"), "--beam and --stop exclude"),
                              (("--interactive",), "--beam and --interactive exclude"),
                              (("--tokens", 0), "--tokens is 0, expected 1 or more"),
                              (("--nbest", 4), "expected 1 to the beam, 3"),
                              (("--suppress", "Q"), "--suppress Q: the model has no such token")):
            with self.subTest(part):
                self.assert_one_line(self.generate("--beam", 3, *options, status=1), part)
        self.assert_one_line(self.generate("--nbest", 2, status=1), "for --beam, which is not given")

    # Where a text begins and ends.

    def test_a_line_reads_bos_once_and_ends_without_an_empty_line(self):
        self.train(*LINES, "--set", "train.sample_every=20", "--set", "train.sample_tokens=500")
        written = self.generate("--prompt", "the ", "--greedy", "--tokens", 500).stdout
        self.assertEqual(written.count("\n"), 1)
        self.assertTrue(written.startswith("the "))
        # What is read is seen in what comes of it: <bos> as text is the one that is read anyway.
        for prompt in ("<bos>the ", "<bos>", ""):
            with self.subTest(prompt):
                same = self.generate("--prompt", prompt, "--greedy", "--tokens", 500).stdout
                self.assertEqual(same.removeprefix("<bos>"),
                                 written if "the" in prompt else
                                 self.generate("--greedy", "--tokens", 500).stdout)

    def test_samples_of_training_are_lines_for_a_model_of_lines(self):
        talk = self.train(*LINES, "--set", "train.sample_every=20", "--set",
                          "train.sample_tokens=500").stderr
        after = talk.split("step 40: a sample\n")[1].splitlines()
        self.assertRegex(after[1], "^(done|step)")
        self.assertEqual(after[0] + "\n",
                         self.generate("--temperature", 0.8, "--tokens", 500).stdout)

    def test_stop_ends_a_text_before_its_first_occurrence(self):
        self.train()
        free = self.generate("--greedy", "--prompt", "the ", "--tokens", 60).stdout[4:-1]
        for stop in (free[7:10], free[20:29], free[0], free[-1]):
            with self.subTest(stop):
                text, = self.texts("--greedy", "--prompt", "the ", "--tokens", 60, "--stop", stop)
                self.assertEqual(text["text"], "the " + free[:free.index(stop)])
                self.assertEqual(text["end"], "stop")
                shown = self.generate("--greedy", "--prompt", "the ", "--tokens", 60, "--stop",
                                      "\u00e9", "--stop", stop).stdout
                self.assertEqual(shown, text["text"] + "\n")
        # What might begin a stop text and does not is printed.
        text, = self.texts("--greedy", "--prompt", "the ", "--tokens", 60, "--stop",
                           free[-3:] + "\u00e9")
        self.assertEqual((text["text"], text["end"]), ("the " + free, "length"))

    def test_special_tokens_of_a_prompt(self):
        self.train("--set", "data.tokens=word", "--set", "data.newline=eos")

        def after(prompt):
            result = self.generate("--prompt", prompt, "--greedy", "--tokens", 12)
            return result.stdout.removeprefix(prompt), result.stderr
        for literal, same in (("the 3<eos>", None), ("the <unk> ", "the unheard "),
                              ("the isle <eos> ", "the isle\n")):
            with self.subTest(literal):
                written, talk = after(literal)
                self.assertEqual("unknown" in talk, literal == "the 3<eos>")  # one word, unheard
                if same:
                    self.assertEqual(written.split(), after(same)[0].split())
        self.train("--set", "data.newline=eos", out="characters")
        greedy = ("--greedy", "--tokens", 30, "--prompt")
        text = run("generate", self.here / "characters", *greedy, "the <unk> isle<eos>t")
        self.assertNotIn("unknown", text.stderr)
        same = run("generate", self.here / "characters", *greedy, "the \u00e9 isle\nt")
        self.assertIn("unknown", same.stderr)
        self.assertEqual(text.stdout.removeprefix("the <unk> isle<eos>t"),
                         same.stdout.removeprefix("the \u00e9 isle\nt"))

    # Prompts that come by standard input.

    def test_a_prompt_from_standard_input(self):
        self.train()
        greedy = ("--greedy", "--tokens", 30, "--prompt")
        self.assertEqual(self.generate(*greedy, "-", input="the isle").stdout,
                         self.generate(*greedy, "the isle").stdout)
        self.assertEqual(self.generate(*greedy, "-", input="of 3\n").stdout,
                         self.generate(*greedy, "of 3\n").stdout)
        self.assertEqual(self.generate(*greedy, "-", input="").stdout,
                         self.generate(*greedy, "").stdout)

    def test_a_line_from_standard_input_goes_on(self):
        self.train(*LINES)
        greedy = ("--greedy", "--tokens", 100, "--prompt")
        self.assertEqual(self.generate(*greedy, "-", input="the 7\n").stdout,
                         self.generate(*greedy, "the 7").stdout)

    def test_a_dialogue_keeps_the_state(self):
        self.train()
        options = ("--greedy", "--tokens", 20)
        first, second = (self.generate(*options, "--prompt", "the ").stdout[4:],
                         self.generate(*options, "--prompt", "sail ").stdout[5:])
        dialogue = self.converse("the \nsail \n", *options)
        self.assertEqual(dialogue[:21], first)
        all_of_it = self.generate(*options, "--prompt", "the " + first + "sail ").stdout
        self.assertEqual(dialogue[21:], all_of_it.removeprefix("the " + first + "sail "))
        self.assertEqual(self.converse("the \n\n", *options)[:21], first)
        self.assertEqual(self.converse("", *options), "")

        self.train(*LINES, out="lines")  # each line from the beginning
        lines = run("generate", self.here / "lines", "--interactive", *options,
                    input="the \nsail \nthe \n").stdout.splitlines()
        self.assertEqual(lines[0], lines[2])
        self.assertEqual(len(lines), 3)

    def test_a_dialogue_ends_cleanly(self):
        self.train()
        command = [CAROUSEL, "generate", self.here / "run", "--interactive", "--device", DEVICE,
                   "--threads", "1"]
        for keys, tokens, status in ((b"\x04", "5", 0), (b"\x03", "5", 130), (b"\x03", "100000000", 130)):
            with self.subTest(keys=keys, tokens=tokens):
                main_end, terminal = pty.openpty()
                process = subprocess.Popen([*command, "--tokens", tokens], stdin=terminal,
                                           stdout=terminal, stderr=subprocess.PIPE)
                os.close(terminal)
                os.write(main_end, b"the \n")
                seen = b""
                while len(seen.split(b"\n", 1)[-1]) < 5:  # after the echo
                    seen += os.read(main_end, 100)
                if keys == b"\x03":
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(main_end, keys)
                try:
                    while os.read(main_end, 1 << 16):
                        pass
                except OSError:  # the other end is closed
                    pass
                talk = process.stderr.read().decode()
                process.stderr.close()
                self.assertEqual(process.wait(timeout=60), status, talk)
                os.close(main_end)
                self.assertRegex(talk, r"^generate: checkpoint \w+, step 40\n(> )+\n$")

    # Text that is no UTF-8, and mistakes.

    def test_json_of_bytes_that_are_no_utf8(self):
        self.train("--set", "data.tokens=byte")
        text, = self.texts("--prompt", b"a\xff\xc3".decode(errors="surrogateescape"), "--tokens", 5)
        self.assertEqual(text["prompt"], "a\ufffd\ufffd")

    def test_options_that_exclude_each_other(self):
        self.train()
        for options in (("--interactive", "--prompt", "a"), ("--interactive", "--count", 2),
                        ("--interactive", "--json"), ("--greedy", "--count", 2),
                        ("--greedy", "--temperature", 0.5), ("--greedy", "--top-k", 3),
                        ("--greedy", "--top-p", 0.5)):
            with self.subTest(options):
                names = [option for option in options if str(option).startswith("--")]
                self.assert_one_line(self.generate(*options, status=1), *names, "exclude")
        for options in (("--count", 0), ("--stop", "")):
            with self.subTest(options):
                self.assert_one_line(self.generate(*options, status=1), options[0])


if __name__ == "__main__":
    main()
