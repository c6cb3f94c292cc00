#!/usr/bin/env python3
"""What people do wrong with the driver: each mistake is one line that names it.

    driver_mistakes_test.py CAROUSEL DEVICE [TEST...]
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import CONFIG, TEXT, DriverCase, main, run


class DriverMistakesTest(DriverCase):
    FILES = {"text.txt": TEXT, "config.toml": CONFIG}

    def test_no_command_and_unknown_words(self):
        self.assertIn("train", run(status=2).stderr + run("--help").stdout)
        for words, said in ((("trian", "x", "--steps", 3), "no command 'trian', did you mean 'train'?"),
                            (("--jsn",), "carousel has no option '--jsn'"),
                            (("train", "config.toml", "--otu=run"),
                             "carousel train has no option '--otu', did you mean '--out'?"),
                            (("generate", "run", "--tokns", 10),
                             "carousel generate has no option '--tokns', did you mean '--tokens'?"),
                            (("runs", "run", "--out", "x"), "carousel runs has no option '--out'"),
                            (("models", "lstm"), "carousel models: nothing takes 'lstm'"),
                            (("train", self.here / "config.toml"), "--out is required")):
            with self.subTest(words):
                self.assert_one_line(run(*words, status=2), said, "--help lists what there is")

    def test_a_config_that_is_not_there(self):
        result = run("train", self.here / "none.toml", "--out", self.here / "run", status=1)
        self.assert_one_line(result, "none.toml", "No such file")
        self.assertFalse((self.here / "run").exists())

    def test_config_mistakes_name_file_line_and_key(self):
        cases = [("hidden = 16", "hiden = 16", ("hiden", "config.toml", "hidden")),
                 ("[optimizer]", "[optimiser]", ("optimiser", "optimizer")),
                 ("hidden = 16", "hidden = -1", ("model.hidden", "-1")),
                 ("hidden = 16", "hidden = 'big'", ("model.hidden", "big")),
                 ('kind = "recurrent_lm"', 'kind = "recurent"', ("recurrent_lm", "recurent")),
                 ('tokens = "char"', 'tokens = "chars"', ("char", "chars")),
                 ("[train]", "[train", ("config.toml",))]
        for good, bad, parts in cases:
            with self.subTest(bad):
                (self.here / "config.toml").write_text(CONFIG.replace(good, bad, 1))
                self.assert_one_line(self.train(status=1), *parts)
                self.assertFalse((self.here / "run").exists())

    def test_set_mistakes(self):
        for word, meant in (("optimizer.lr=1", "learning_rate"), ("train.epochs=3", "steps"),
                            ("model.hidden_size=3", "hidden"), ("model.dropout_rate=0", "dropout"),
                            ("train.batch_size=3", "batch"), ("training.steps=1", "train")):
            with self.subTest(word):
                self.assert_one_line(self.train("--set", word, status=1), f"did you mean '{meant}'?")
        self.assert_one_line(self.train("--set", "model.hidden=", status=1), "is empty, expected an")
        for word in ("model.hidden", "hidden=3", "model.hiden=3", "model.hidden=0", "=", ""):
            with self.subTest(word):
                self.assert_one_line(self.train("--set", word, status=1))

    def test_data_mistakes(self):
        cases = [(None, "data.text: opening"), (None, "No such file"), (b"", "empty"), (b"ab\xff\xfecd" * 99, "UTF-8"),
                 (b"short", "window")]
        for content, part in cases:
            with self.subTest(part):
                path = self.here / "text.txt"
                path.unlink(missing_ok=True)
                if content is not None:
                    path.write_bytes(content)
                self.assert_one_line(self.train(status=1), "text.txt", part)

    def test_a_run_is_never_overwritten(self):
        self.train()
        before = sorted((p, p.stat().st_mtime_ns) for p in (self.here / "run").rglob("*"))
        self.assert_one_line(self.train(status=1), "run", "--resume")
        self.assert_one_line(self.train(status=1, out="."), "exists already and is no run")
        after = sorted((p, p.stat().st_mtime_ns) for p in (self.here / "run").rglob("*"))
        self.assertEqual(before, after)

    def test_resuming_nothing_or_another_model(self):
        for resume in (self.train("--resume", status=1), run("resume", self.here / "run", status=1)):
            self.assert_one_line(resume, f"there is no run {self.here / 'run'}")
        self.train()
        self.assert_one_line(self.train("--resume", "--set", "model.hidden=8", status=1), "hidden")

    def test_a_run_that_is_not_there_or_damaged(self):
        for command in (("generate",), ("eval", "--data", self.here / "text.txt")):
            result = run(command[0], self.here / "none", *command[1:], status=1)
            self.assert_one_line(result, f"there is no run {self.here / 'none'}")
        self.train()
        weights = self.here / "run/checkpoints/last/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-7])
        self.assert_one_line(run("generate", self.here / "run", status=1), "model.safetensors")

    def test_numbers_out_of_range(self):
        self.train()
        for option, value in (("--temperature", 0), ("--temperature", -1), ("--top-p", 0),
                              ("--top-p", 1.5), ("--top-k", -2), ("--tokens", -1)):
            with self.subTest(option):
                result = run("generate", self.here / "run", option, value, status=1)
                self.assert_one_line(result, option)
        self.assert_one_line(run("generate", self.here / "run", "--seed", -1, status=2),
                             "--seed: is -1, expected 0 or more")

    def test_a_device_or_precision_that_is_not_there(self):
        self.assert_one_line(self.train("--set", "train.device=gpu", status=1, out="a"), "gpu")
        self.assert_one_line(self.train("--precision", "f16", status=1, out="b"), "f16")

    def test_a_learning_rate_that_diverges_stops_and_saves_nothing_bad(self):
        result = self.train("--set", "optimizer.kind=sgd", "--set", "optimizer.learning_rate=1e39",
                            "--set", "optimizer.clip_norm=0", status=1)
        self.assertRegex(result.stderr.strip().splitlines()[-1], r"step \d+ .*not a finite number")


if __name__ == "__main__":
    main()
