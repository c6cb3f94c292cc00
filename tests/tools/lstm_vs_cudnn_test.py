#!/usr/bin/env python3
"""lstm_vs_cudnn with the emulated cuDNN: its lines, and how it continues after a stop.

    lstm_vs_cudnn_test.py LSTM_VS_CUDNN [TEST...]
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv[1]
ALGORITHMS = ["STANDARD", "PERSIST_STATIC", "PERSIST_DYNAMIC", "PERSIST_STATIC_SMALL_H"]
OURS = [("carousel", "carousel", dtype) for dtype in ("f32", "tf32", "bf16")]
THEIRS = [("cudnn", algorithm, dtype)
          for algorithm in ALGORITHMS for dtype in ("f32", "tf32", "bf16", "fp16")]
# 132 is too wide for the backward pass of one algorithm, 40000 for the device's memory.
SWEEP = ["--hidden", "40000,8,132", "--batch", "2", "--steps", "2", "--cell-seconds", "0"]


def key(line):
    return tuple(line[k] for k in ("H", "B", "T", "pass", "library", "algorithm", "dtype", "launch"))


class Program(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name) / "lines.jsonl"

    def run_program(self, *arguments, status=0, **environment):
        result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                                timeout=600, env={**os.environ, **environment})
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result

    def sweep(self, *arguments):
        return self.run_program("--out", self.file, *(arguments or SWEEP)).stdout

    def lines(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def test_every_cell_pass_and_implementation_has_its_line(self):
        output = self.sweep()
        lines = self.lines()
        wanted = {(width, 2, 2, step, *who, launch) for width in (40000, 8, 132)
                  for step in ("forward", "train") for who in OURS + THEIRS
                  for launch in ("eager", "graph")}
        self.assertEqual(collections.Counter(map(key, lines)), collections.Counter(wanted))
        for line in lines:
            with self.subTest(line=line):
                self.check_line(line)
        self.assertIn("all 3 cells are measured", output)
        self.check_table(lines, output)

    def check_line(self, line):
        width, algorithm, dtype = line["H"], line["algorithm"], line["dtype"]
        self.assertEqual(line["version"], "9.19.0" if line["library"] == "cudnn" else "")
        refusal = None
        if algorithm == "PERSIST_STATIC":
            refusal = "CUDNN_STATUS_NOT_SUPPORTED: PERSIST_STATIC"
        elif (algorithm == "PERSIST_STATIC_SMALL_H" and width == 132 and line["pass"] == "train"):
            refusal = "CUDNN_STATUS_NOT_SUPPORTED: PERSIST_STATIC_SMALL_H: too wide"
        elif width == 40000:
            refusal = "out of memory"
        if refusal:
            self.assertIn(refusal, line["status"])
            self.assertNotIn("median_ms", line)
            return
        self.assertEqual(line["status"], "ok")
        self.assertGreater(line["min_ms"], 0)
        self.assertLessEqual(line["min_ms"], line["median_ms"])
        self.assertLessEqual(line["median_ms"], line["max_ms"])
        self.assertGreaterEqual(line["repetitions"], 5)
        self.assertGreater(line["workspace_bytes"], 0)
        self.assertGreater(line["reserve_bytes"], 2 * 2 * 4 * width)
        if line["library"] == "cudnn":
            packed = algorithm == "PERSIST_DYNAMIC"  # it accepts no other
            self.assertEqual(line["layout"], "packed" if packed else "padded")

    def check_table(self, lines, output):
        """The ratio of one row, from the lines."""
        def fastest(library, dtypes):
            return min(line["median_ms"] for line in lines
                       if line["H"] == 8 and line["pass"] == "train" and line["status"] == "ok"
                       and line["library"] == library and line["dtype"] in dtypes)
        rows = [row.split() for row in output.splitlines()]
        row, = [row for row in rows if row[:5] == ["train", "2", "8", "2", "bf16"]]
        ratio = fastest("cudnn", ("bf16", "fp16")) / fastest("carousel", ("bf16",))
        self.assertAlmostEqual(float(row[5]), ratio, delta=0.006)
        self.assertFalse([row for row in rows if row[2:3] == ["40000"]])

    def test_it_goes_on_where_it_stopped(self):
        small = ["--hidden", "8,12", "--batch", "2", "--steps", "2", "--cell-seconds", "0"]
        self.sweep(*small)
        lines = self.file.read_text().splitlines()
        whole = {key(line) for line in self.lines()}
        kept = [line for line in lines if json.loads(line)["H"] == 8]
        self.file.write_text("\n".join(kept) + "\n" + lines[-1][:40])  # stopped while writing
        output = self.sweep(*small)
        self.assertEqual(self.file.read_text().splitlines()[:len(kept)], kept)
        self.assertEqual({key(line) for line in self.lines()}, whole)
        self.assertEqual(len(self.lines()), len(lines))  # nothing was measured twice
        self.assertNotIn("H 8 B", output)
        before = self.file.read_text()
        self.sweep(*small)
        self.assertEqual(self.file.read_text(), before)

    def test_what_ended_the_program_is_not_tried_again(self):
        small = ["--hidden", "8", "--batch", "2", "--steps", "2", "--cell-seconds", "0"]
        self.sweep(*small)
        tried = next(line for line in self.lines() if line["algorithm"] == "STANDARD"
                     and line["dtype"] == "tf32" and line["launch"] == "eager")
        self.file.unlink()
        pathlib.Path(f"{self.file}.running").write_text(json.dumps(tried) + "\n")
        self.sweep(*small)
        for line in self.lines():
            same = all(line[k] == tried[k] for k in ("algorithm", "dtype"))
            self.assertEqual("was stopped, or ended" in line["status"], same, line)
        self.assertFalse(pathlib.Path(f"{self.file}.running").exists())

    def test_when_the_time_is_up_it_says_what_is_left(self):
        output = self.sweep(*SWEEP, "--seconds", "0")
        self.assertEqual(output.splitlines()[-1],
                         "3 of 3 cells left: the same command continues")
        self.assertEqual(self.lines(), [])

    def test_mistakes_are_one_line(self):
        self.file.write_text("{}\n")
        for arguments, environment, words in (
                (["--hidden", "8"], {}, "--out is required"),
                (["--out", self.file], {}, f"{self.file}:1: no line of lstm_vs_cudnn"),
                (["--out", self.file.parent / "no/lines"], {}, "No such file or directory"),
                (["--out", self.file, "--hidden", "8,none"], {}, "none"),
                (["--out", self.file, "--batch", "0"], {}, "--batch"),
                (["--out", self.file, "--colour", "red"], {}, "--colour"),
                (["--out", self.file], {"CAROUSEL_CUDNN": "/no/libcudnn"}, "no cuDNN: /no/libcudnn")):
            with self.subTest(arguments=arguments):
                result = self.run_program(*arguments, status=1, **environment)
                self.assertEqual(result.stdout, "")
                self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
                self.assertTrue(result.stderr.startswith("lstm_vs_cudnn: "), result.stderr)
                self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
