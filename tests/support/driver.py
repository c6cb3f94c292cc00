"""Runs the driver in a folder of its own: what every test of its commands begins with.

A test's arguments are CAROUSEL DEVICE [TEST...].
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

CAROUSEL, DEVICE = sys.argv[1:3]
# Sanitizers keep books of their own.
SANITIZED = b"__asan_init" in pathlib.Path(CAROUSEL).read_bytes()

TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(60))
CONFIG = """
[model]
kind = "recurrent_lm"
embed = 8
hidden = 16
layers = 2
dropout = 0.1
[data]
text = "text.txt"
tokens = "char"
[train]
steps = 12
batch = 4
window = 8
report_every = 2
evaluate_every = 6
save_every = 4
[optimizer]
kind = "adamw"
learning_rate = 1e-2
clip_norm = 1.0
"""
SMALL_CONFIG = """
[model]
kind = "recurrent_lm"
embed = 8
hidden = 16
[data]
text = "text.txt"
tokens = "char"
[train]
steps = 6
batch = 4
window = 8
evaluate_every = 3
[optimizer]
learning_rate = 1e-2
"""
CLASSIFIER = """
[model]
kind = "classifier"
embed = 4
hidden = 6
layers = 1
[data]
kind = "labelled"
text = "words.tsv"
[train]
steps = 2
batch = 2
"""
EXAMPLES = "x\tab\ny\tcd\nx\tae\ny\tcf\n"


def run(*arguments, status=0, **options):
    """Runs the driver; every failure must be one line on standard error and nothing else there."""
    command = [CAROUSEL, *map(str, arguments)]
    if arguments and arguments[0] in ("train", "resume", "eval", "generate", "predict", "score", "embed",
                                      "inspect"):
        command += ["--device", DEVICE, "--threads", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if result.returncode != status:
        raise AssertionError(f"{command} returned {result.returncode}, expected {status}:\n"
                             f"{result.stdout}\n{result.stderr}")
    return result


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class DriverCase(unittest.TestCase):
    FILES = {}  # name: content, "config.toml" among them

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.here = pathlib.Path(self.folder.name)
        for name, content in self.FILES.items():
            (self.here / name).write_text(content)

    def tearDown(self):
        self.folder.cleanup()

    def train(self, *more, status=0, out="run"):
        return run("train", self.here / "config.toml", "--out", self.here / out, *more,
                   status=status)

    def assert_one_line(self, result, *parts):
        lines = result.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertEqual(result.stdout, "")
        for part in parts:
            self.assertIn(str(part), lines[0])


# Of what happens on the host: the emulated device would take its time.
on_cpu_alone = unittest.skipUnless(DEVICE == "cpu", "it is the same on every device")


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
