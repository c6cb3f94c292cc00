#!/usr/bin/env python3
"""tests/bench/peers/cpu_table.py: README has the tables of the committed results; what it makes of
results, how it merges them, and which of PyTorch's ways it looks for. Nothing is measured."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import types
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.append(str(ROOT / "tests/bench/peers"))
import compare_lm
import cpu_table


def figures(f32, bf16, pytorch_f32, pytorch_bf16):
    def record(rates, peak):
        return {"tokens/s": rates, "peak MB": peak}
    return {"commit": "abc", "date": "2030-01-02", "torch": "9.9",
            "carousel": {"f32": record(f32, 100), "bf16": record(bf16, 120)},
            "pytorch": {"f32": record(pytorch_f32, 500), "bf16": record(pytorch_bf16, 600)},
            "ceilings": {"f32 GFLOP/s": 400, "bf16 GFLOP/s": 800, "copy GB/s": 50}}


class Tables(unittest.TestCase):
    def test_readme_has_the_tables_of_the_committed_results(self):
        readme = (ROOT / "README.md").read_text()
        self.assertEqual(
            readme, cpu_table.with_tables(readme, cpu_table.all_tables(cpu_table.RESULTS)),
            "write it with tests/bench/peers/cpu_table.py --readme")

    def test_each_side_counts_with_its_faster_precision(self):
        rows = {"lstm1x512": figures([20e3, 30e3], [50e3, 40e3], [10e3, 10e3], [20e3, 20e3]),
                "lstm2x256": figures([60e3], [50e3], [30e3], [15e3]),
                "generate": figures([9e3], [1e3], [1e3], [3e3])}
        found = {"cpu": "Some CPU", "threads": 2, "rows": rows}
        text = cpu_table.markdown(found)
        lines = [" ".join(line.split("|")[2:]).split() for line in text.splitlines()
                 if line.startswith("| LSTM") or line.startswith("| gen")]
        self.assertEqual(lines[0], ["60k", "50k", "30k", "15k", "2.00"])  # in the order of ROWS
        self.assertEqual(lines[1], ["25k", "45k", "10k", "20k", "2.25"])
        self.assertEqual(lines[2], ["9k", "1k", "1k", "3k", "3.00"])
        # 60k · 5.6 MFLOP of 400 GFLOP/s, 50k of 800; memory of f32 over f32.
        self.assertEqual(lines[3], ["100", "MB", "500", "MB", "0.20", "0.84", "0.35"])
        self.assertEqual(lines[4], ["120", "MB", "600", "MB", "0.20", "0.45", "0.41"])
        self.assertEqual(lines[5], ["100", "MB", "600", "MB", "0.17", "–", "–"])
        self.assertIn("Training is 2.12 times as fast in the geometric mean, 2.00 times at least",
                      text)

    def test_flops_of_a_token(self):
        # Input and recurrent products of four gates, the logits; a multiplication and an addition;
        # forward, and two products backward.
        self.assertEqual(cpu_table.ROWS["lstm1x512"].flops(),
                         3 * 2 * (4 * 512 * 64 + 4 * 512 * 512 + 65 * 512))
        self.assertEqual(cpu_table.ROWS["gru2x256"].flops(),
                         3 * 2 * (3 * 256 * (128 + 256 + 256 + 256) + 65 * 256))

    def test_a_text_has_every_token_but_unknown(self):
        with tempfile.TemporaryDirectory() as folder:
            for key in ("lstm2x256", "words33k"):
                row = cpu_table.ROWS[key]
                text = cpu_table.make_text(row, pathlib.Path(folder)).read_text()
                tokens = set(text.split() if row.unit() == "word" else text)
                self.assertEqual(len(tokens), row.vocabulary - 1)


class Runs(unittest.TestCase):
    def measure(self, folder, **rows):
        """Measures these rows, which have these figures."""
        options = types.SimpleNamespace(threads=2, rows=list(rows))
        keys = {cpu_table.ROWS[key]: value for key, value in rows.items()}
        with mock.patch.object(cpu_table, "RESULTS", folder), \
                mock.patch.object(cpu_table, "cpu", lambda: "Some CPU (R)"), \
                mock.patch.object(cpu_table, "measure", lambda row, a, text: keys[row]), \
                contextlib.redirect_stdout(io.StringIO()):
            cpu_table.measure_all(options)
        file, = folder.glob("*.json")
        self.assertEqual(file.name, "some-cpu-r-2-threads.json")
        return json.loads(file.read_text())["rows"]

    def test_a_row_measured_again_replaces_the_old_one(self):
        slow, fast = figures([1e3], [1e3], [1e3], [1e3]), figures([2e3], [2e3], [1e3], [1e3])
        with tempfile.TemporaryDirectory() as name:
            self.measure(pathlib.Path(name), lstm2x256=slow, tanh2x256=slow)
            rows = self.measure(pathlib.Path(name), lstm2x256=fast)
        self.assertEqual(rows["lstm2x256"]["carousel"]["f32"]["tokens/s"], [2e3])
        self.assertEqual(rows["tanh2x256"]["carousel"]["f32"]["tokens/s"], [1e3])

    def test_the_fastest_ways_in_f32_and_in_bf16_go_on(self):
        rates = {"f32/2/foreach/eager": 2, "f32/1/foreach/eager": 1,
                 "bf16/2/foreach/eager": 3, "bf16/1/foreach/eager": 4,
                 "bf16-weights/1/foreach/eager": 2.5,
                 "f32/2/fused/eager": 1.5, "bf16/1/fused/eager": 5,
                 "f32/2/foreach/compiled": 1, "bf16/1/fused/compiled": 6,
                 "bf16/1/fused/max-autotune": 5.5}
        comparison = compare_lm.Comparison("carousel", "python", "text", {}, threads=2)
        usual = [way for way in rates if way.endswith("foreach/eager")]
        comparison.theirs = lambda ways, *_, **__: [{"way": way, "tokens/s": rates[way]}
                                              for way in ways or usual]
        tried = comparison.search("bf16")
        self.assertEqual(tried, rates)
        self.assertEqual(next(iter(tried)), "bf16/1/fused/compiled")

    def test_a_way_that_fails_is_left_out_with_its_reason(self):
        comparison = compare_lm.Comparison("carousel", sys.executable, "text", {}, threads=1)
        said = {"way": "f32/1/foreach/eager", "tokens/s": 5}, {"way": "x", "error": "no compiler"}
        ended = mock.Mock(stdout="".join(f"{json.dumps(line)}\n" for line in said), stderr="")
        with mock.patch.object(compare_lm.subprocess, "run", return_value=ended):
            self.assertEqual(comparison.theirs(["x"]), [said[0]])
        self.assertEqual(comparison.refused, {"x": "no compiler"})
        ended.stdout = json.dumps(said[1])
        with mock.patch.object(compare_lm.subprocess, "run", return_value=ended):
            self.assertEqual(comparison.theirs(["x"], required=False), [])
            self.assertRaises(SystemExit, comparison.theirs, ["x"])


if __name__ == "__main__":
    unittest.main()
