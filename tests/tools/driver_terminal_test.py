#!/usr/bin/env python3
"""The driver on a terminal: lines that fit it, and whole ones where there is none.

    driver_terminal_test.py CAROUSEL DEVICE [TEST...]
"""

import fcntl
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import CAROUSEL, DEVICE, DriverCase, main, run
from driver_runs_test import CLASSIFIER, CONFIG, TEXT

COMMANDS = ("train", "resume", "eval", "predict", "score", "embed", "compare", "generate",
            "runs", "models")
END = b"\0end\0"


def on_terminal(*arguments, width=80, columns=None):
    """What the driver shows on a terminal of this width, line by line; redrawn lines are lines."""
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    if columns is not None:
        environment["COLUMNS"] = columns
    command = [CAROUSEL, *map(str, arguments)]
    if arguments[0] in ("train", "resume", "eval", "generate", "score", "predict", "embed"):
        command += ["--device", DEVICE, "--threads", "1"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
                               env=environment)

    def mark_the_end():  # some kernels drop what was not read yet when the last writer closes
        process.wait()
        os.write(terminal, END)

    waiting = threading.Thread(target=mark_the_end)
    waiting.start()
    shown = b""
    while not shown.endswith(END):
        shown += os.read(main_end, 1 << 16)
    waiting.join()
    os.close(terminal)
    os.close(main_end)
    return re.split(r"[\r\n]+", shown.removesuffix(END).decode().replace("\033[K", "").strip())


def words(text):
    return " ".join(text).split() if isinstance(text, list) else text.split()


class DriverTerminalTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT}

    def fits(self, *arguments, width=80, columns=None):
        lines = on_terminal(*arguments, width=width, columns=columns)
        self.assertGreater(len(lines), 0)
        limit = int(columns or width)
        for line in lines:
            self.assertLessEqual(len(line), limit, line)
        return lines

    def test_help_fits(self):
        self.fits("--help")
        for command in COMMANDS:
            with self.subTest(command):
                lines = self.fits(command, "--help")
                self.assertEqual(words(lines), words(run(command, "--help").stdout))

    def test_models_fit_and_are_a_line_an_option_where_there_is_no_terminal(self):
        whole = run("models").stdout.splitlines()
        for width, columns in ((80, None), (80, "60"), (120, None)):
            with self.subTest(width=width, columns=columns):
                lines = self.fits("models", width=width, columns=columns)
                self.assertEqual(words(lines), words("\n".join(whole)))
                self.assertGreater(len(lines), len([line for line in whole if line]))
                # What is wrapped goes on under what it explains.
                self.assertTrue(any(re.match(" {34}[a-z]", line) for line in lines))
        self.assertGreater(max(map(len, whole)), 120)

    def test_training_fits(self):
        lines = self.fits("train", self.here / "config.toml", "--out", self.here / "run",
                          "--explain", "--set", "model.activation_penalty=1")
        self.assertTrue(any("weights, vocabulary" in line for line in lines))
        self.assertTrue(any("12/12" in line for line in lines))
        for command in (("eval", self.here / "run", "--explain", "--data", self.here / "text.txt"),
                        ("generate", self.here / "run", "--explain", "--tokens", 9),
                        ("embed", self.here / "run", "--data", self.here / "text.txt", "--out",
                         self.here / "states.npy"),
                        ("embed", self.here / "run", "--what", "all", "--out", "states.npy"),
                        ("eval", self.here / "run", "--data", self.here / "none")):
            with self.subTest(command[0]):
                self.fits(*command)

    def test_explanations_are_whole_where_there_is_no_terminal(self):
        talk = run("train", self.here / "config.toml", "--out", self.here / "run", "--explain").stderr
        self.assertRegex(talk, r"\nmemory: .{60,} all else [\d.]+ .B\n")

    def test_compare_fits_and_names_the_columns_that_it_left_out(self):
        sides = ("compare", self.here / "config.toml", "--precisions", "f32,bf16", "--device",
                 "cpu", "--steps", 3)
        lines = self.fits(*sides)
        self.assertTrue(any(line.startswith("not shown, for want of room: largest error, where") for line in lines))
        self.assertTrue(any(re.match(r"ok    gradient of lstm layer 0, gate f .*\d$", line)
                            for line in lines))
        whole = run(*sides).stdout
        self.assertNotIn("not shown", whole)
        self.assertRegex(whole, r"\nok    gradient of lstm layer 0, gate f .* row \d+, unit \d+\n")

    def test_runs_fit(self):
        for i in range(3):
            self.train("--set", f"model.hidden={16 + i}", "--set", f"train.seed={i + 1}", "--set",
                       f"optimizer.learning_rate=1.23456789e-{i + 1}", "--set",
                       f"model.recurrent_dropout=0.{i}234567", out=f"runs/a-run-with-a-name-{i}")
        (self.here / "runs/broken").mkdir()
        lines = self.fits("runs", self.here / "runs")
        self.assertRegex(lines[-1], "not shown, for want of room: .*tokens/s, time$")
        self.assertEqual(len(lines), 6)
        self.assertNotIn("not shown", run("runs", self.here / "runs").stdout)

    def test_a_confusion_matrix_fits(self):
        labels = [f"a rather long label {i}" for i in range(6)]
        (self.here / "words.tsv").write_text("".join(f"{label}\tab{i % 3}\n" for label in labels
                                                     for i in range(6)))
        (self.here / "config.toml").write_text(CLASSIFIER)
        self.train()
        lines = self.fits("eval", self.here / "run", "--data", self.here / "words.tsv")
        self.assertTrue(all(any(line.startswith(label) for line in lines) for label in labels))
        self.assertIn("  a rather long label 5", run("eval", self.here / "run", "--data",
                                                     self.here / "words.tsv").stdout)


if __name__ == "__main__":
    main()
