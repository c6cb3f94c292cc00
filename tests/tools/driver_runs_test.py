#!/usr/bin/env python3
"""What the driver tells of many runs, and of one: runs, train --json.

    driver_runs_test.py CAROUSEL DEVICE [TEST...]
"""

import csv
import io
import json
import pathlib
import shutil
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import DriverCase, main, metrics, run

CONFIG = """
[model]
kind = "recurrent_lm"
embed = 8
hidden = 16
[data]
text = "text.txt"
tokens = "char"
[train]
steps = 12
batch = 4
window = 8
evaluate_every = 4
[optimizer]
learning_rate = 1e-2
"""
CLASSIFIER = CONFIG.replace("recurrent_lm", "classifier").replace("text.txt", "words.tsv").replace(
    "[data]", '[data]\nkind = "labelled"')
TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(60))


class DriverRunsTest(DriverCase):
    FILES = {"config.toml": CONFIG, "text.txt": TEXT, "classifier.toml": CLASSIFIER,
             "words.tsv": "x\tab\ny\tcd\nx\tae\ny\tcf\n" * 9}

    def train_three(self):
        for name, rate, hidden in (("slow", 1e-4, 16), ("fast", 3e-2, 16), ("wide", 1e-2, 24)):
            self.train("--set", f"optimizer.learning_rate={rate}", "--set",
                       f"model.hidden={hidden}", out=f"runs/{name}")

    def runs(self, *more, **options):
        return run("runs", *more, **options)

    def test_a_line_for_each_run_says_how_it_differs_and_how_far_it_is(self):
        self.train_three()
        lines = self.runs(self.here / "runs").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["run", "hidden", "learning_rate", "step", "best",
                                            "tokens/s", "time"])
        self.assertEqual([line.split()[0] for line in lines[1:]], ["fast", "slow", "wide"])
        for line in lines[1:]:
            name, hidden, rate, step, metric, best, _, time = line.split()
            self.assertEqual((hidden, rate), {"slow": ("16", "0.0001"), "fast": ("16", "0.03"),
                                              "wide": ("24", "0.01")}[name])
            self.assertEqual((step, metric), ("12/12", "loss"))
            self.assertRegex(time, r"^\d:\d\d$")
            losses = [l["validation_loss"] for l in metrics(self.here / "runs" / name)
                      if "validation_loss" in l]
            self.assertEqual(best, f"{min(losses):.4f}")
        # Runs of their own, in the order that is given.
        lines = self.runs(self.here / "runs/slow", self.here / "runs/fast").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["run", "slow", "fast"])
        self.assertNotIn("hidden", lines[0])

    def test_sorting(self):
        self.train_three()

        def order(column):
            lines = self.runs(self.here / "runs", "--sort", column).stdout.splitlines()
            return [line.split()[0] for line in lines[1:]]
        self.assertEqual(order("learning_rate"), ["slow", "wide", "fast"])
        self.assertEqual(order("optimizer.learning_rate"), ["slow", "wide", "fast"])
        self.assertEqual(order("run"), ["fast", "slow", "wide"])
        rows = json.loads(self.runs(self.here / "runs", "--json", "--sort", "best").stdout)
        self.assertEqual([row["best"] for row in rows], sorted(row["best"] for row in rows))
        self.assertEqual(rows[-1]["run"], "slow")
        self.assert_one_line(self.runs(self.here / "runs", "--sort", "speed", status=1), "--sort",
                             "speed", "learning_rate, step, best, tokens/s, time")

    def test_the_best_accuracy_comes_first(self):
        for name, steps in (("a", 1), ("b", 200)):
            run("train", self.here / "classifier.toml", "--out", self.here / "runs" / name, "--set",
                f"train.steps={steps}")
        rows = json.loads(self.runs(self.here / "runs", "--json", "--sort", "best").stdout)
        self.assertEqual([row["best_metric"] for row in rows], ["accuracy", "accuracy"])
        self.assertGreater(rows[0]["best"], rows[1]["best"])
        self.assertEqual(rows[0]["run"], "b")

    def test_json_and_csv_have_all_of_it(self):
        self.train_three()
        self.train("--set", "model.learn_initial_state=true", out="runs/zero")
        text = self.runs(self.here / "runs", "--json").stdout
        rows = json.loads(text)
        fast = rows[0]
        self.assertEqual([row["model.learn_initial_state"] for row in rows], [False] * 3 + [True])
        last = metrics(self.here / "runs/fast")[-1]
        self.assertEqual((fast["run"], fast["step"], fast["steps"], fast["tokens"],
                          fast["best_metric"], fast["best_step"], fast["remark"]),
                         ("fast", 12, 12, last["tokens"], "loss", 12, ""))
        self.assertEqual((fast["optimizer.learning_rate"], fast["model.hidden"]), (0.03, 16))
        self.assertEqual(fast["folder"], str(self.here / "runs/fast"))
        self.assertAlmostEqual(fast["tokens_per_second"], last["tokens"] / last["seconds"])
        table = list(csv.DictReader(io.StringIO(self.runs(self.here / "runs", "--csv").stdout)))
        self.assertEqual([{k: "" if v is None else v if isinstance(v, str) else json.dumps(v)
                           for k, v in row.items()}
                          for row in json.loads(text, parse_float=str, parse_int=str)], table)
        self.assert_one_line(self.runs(self.here / "runs", "--csv", "--json", status=1),
                             "--json and --csv exclude each other")

    def test_a_broken_or_unfinished_folder_has_a_row_that_says_so(self):
        self.train(out="runs/good")
        runs = self.here / "runs"
        for name in ("begun", "broken, \"quoted\"", "damaged", "empty", "forged", ".hidden"):
            (runs / name).mkdir()
        report = '{"step": 1, "tokens": 32, "seconds": 0.5}\n'
        config = (runs / "good/config.toml").read_text()
        for name in ("begun", "damaged", "forged"):
            (runs / name / "config.toml").write_text(config)
        (runs / "broken, \"quoted\"" / "config.toml").write_text("[model]\nkind = 1\n")
        (runs / "damaged/metrics.jsonl").write_text(report + '{"st\n')
        (runs / "forged/metrics.jsonl").write_text(report + report.replace("32", '"many"'))
        shutil.copytree(runs / "good/checkpoints/best", runs / "weights")
        lines = {line.split()[0]: line for line in self.runs(runs).stdout.splitlines()}
        self.assertEqual(sorted(lines), ["begun", "broken,", "damaged", "empty", "forged", "good",
                                         "run", "weights"])
        for name, part in (("begun", "no report yet"), ("broken,", "model.kind"), ("empty", "no run"),
                           ("damaged", "metrics.jsonl:2"), ("forged", "metrics.jsonl:2"),
                           ("good", "12/12"), ("weights", "weights alone")):
            self.assertIn(part, lines[name])
        table = csv.DictReader(io.StringIO(self.runs(runs, "--csv").stdout))
        self.assertEqual([row["run"] for row in table],
                         ["begun", "broken, \"quoted\"", "damaged", "empty", "forged", "good",
                          "weights"])
        self.assert_one_line(self.runs(self.here / "none", status=1), "none")

    # train --json.

    def test_training_ends_with_its_result_as_json(self):
        result = json.loads(self.train("--json").stdout)
        last = metrics(self.here / "run")[-1]
        self.assertEqual(result, {"end": "finished", "folder": str(self.here / "run"), "step": 12,
                                  "steps": 12, "tokens": last["tokens"],
                                  "seconds": last["seconds"], "loss": last["loss"],
                                  "validation": {"loss": last["validation_loss"]},
                                  "best": {"loss": min(l["validation_loss"]
                                                       for l in metrics(self.here / "run")
                                                       if "validation_loss" in l)}})
        again = json.loads(run("resume", self.here / "run", "--json").stdout)
        self.assertEqual((again["end"], again["loss"], again["step"]), ("nothing to do", None, 12))
        self.assertEqual(again["best"], result["best"])


if __name__ == "__main__":
    main()
