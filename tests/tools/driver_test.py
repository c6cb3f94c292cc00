#!/usr/bin/env python3
"""Tests the driver's commands: output, files, and error messages.

    driver_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import tomllib
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from driver import CAROUSEL, CONFIG, DEVICE, SANITIZED, TEXT, DriverCase, main, metrics, run


class DriverTest(DriverCase):
    FILES = {"text.txt": TEXT, "config.toml": CONFIG}

    # Files of a run.

    def test_a_schedule_that_is_extended_says_where_it_jumps(self):
        jumps = "the learning rate goes on at"
        for name, options in (("rises", ("schedule.warm_up=50",)),
                              ("falls", ("schedule.kind=cosine", "schedule.warm_up=2"))):
            folder = self.here / name
            given = [word for option in options for word in ("--set", option)]
            self.train(*given, "--set", "train.steps=4", out=name)
            talk = run("resume", folder, "--set", "train.steps=8").stderr
            self.assertEqual(jumps in talk, name == "falls", talk)

    def test_training_leaves_config_metrics_and_checkpoints(self):
        result = self.train()
        self.assertEqual(result.stdout, "")
        lines = metrics(self.here / "run")
        self.assertEqual([line["step"] for line in lines], [1, 2, 4, 6, 8, 10, 12])
        for key in ("epoch", "tokens", "seconds", "loss", "gradient_norm", "learning_rate",
                    "tokens_per_second"):
            self.assertIn(key, lines[0])
        self.assertEqual([l["step"] for l in lines if "validation_loss" in l], [6, 12])
        self.assertEqual(lines[0]["tokens"], 32)
        checkpoints = self.here / "run" / "checkpoints"
        self.assertEqual(os.readlink(checkpoints / "last"), "step-12")
        self.assertTrue((checkpoints / "best" / "model.safetensors").is_file())
        self.assertIn("hidden = 16", (self.here / "run" / "config.toml").read_text())

    def test_the_written_config_trains_the_same_run_again(self):
        self.train()
        run("train", self.here / "run" / "config.toml", "--out", self.here / "again")
        one, two = (self.here / name / "checkpoints/last/model.safetensors"
                    for name in ("run", "again"))
        self.assertEqual(len(one.read_bytes()), len(two.read_bytes()))
        self.assertEqual([l["loss"] for l in metrics(self.here / "run")],
                         [l["loss"] for l in metrics(self.here / "again")])

    def test_resuming_continues_and_a_finished_run_stays(self):
        self.train()
        self.train("--set", "train.steps=6", out="short")
        self.train("--resume", out="short")
        names = ("run", "short")
        last = [(self.here / n / "checkpoints/last/state.safetensors").read_bytes() for n in names]
        self.assertEqual(last[0], last[1])
        before = (self.here / "run" / "metrics.jsonl").read_bytes()
        self.assertIn("12", self.train("--resume").stderr)
        self.assertEqual(before, (self.here / "run" / "metrics.jsonl").read_bytes())

    def test_a_model_by_its_former_name_trains_and_resumes(self):
        self.train()
        former = CONFIG.replace('"recurrent_lm"', '"lstm_lm"')
        self.assertNotEqual(former, CONFIG)
        (self.here / "config.toml").write_text(former)
        self.train("--set", "train.steps=6", out="former")
        self.train("--resume", out="former")
        one, two = ((self.here / n / "checkpoints/last/state.safetensors").read_bytes()
                    for n in ("run", "former"))
        self.assertEqual(one, two)

    def train_measured(self, steps, *more):
        """Trains on a longer text, without validation. Returns the peak that the run printed, the
        largest resident set, both in bytes, and all that the run printed."""
        (self.here / "text.txt").write_text(TEXT * 40)
        command = [CAROUSEL, "train", self.here / "config.toml", "--out",
                   self.here / f"run-{steps}-{len(more)}", "--device", DEVICE, "--threads", "1",
                   "--set", "data.train_fraction=1.0", "--set", f"train.steps={steps}", *more]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "CAROUSEL_EMULATION_COUNTERS": "1",
                                        # Freed blocks go back to the system at once.
                                        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"})
        talk = process.stderr.read()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, talk)
        number, unit = re.search(r"memory: peak ([\d.]+) (KB|MB|GB)", talk).groups()
        printed = float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
        return printed, usage.ru_maxrss * 1024, talk

    @unittest.skipIf(DEVICE == "cuda" or SANITIZED, "resident memory is not the run's own here")
    def test_memory_does_not_grow_and_is_what_was_printed(self):
        large = ("--set", "model.hidden=160", "--set", "train.window=250", "--set", "train.batch=32")
        small_printed, small_measured, _ = self.train_measured(2)
        printed, measured, _ = self.train_measured(2, *large)
        self.assertAlmostEqual((measured - small_measured) / (printed - small_printed), 1,
                               delta=0.05)
        _, longer, _ = self.train_measured(7, *large)
        self.assertLess(longer, measured * 1.02)

    @unittest.skipIf(DEVICE == "cpu", "the CPU keeps no counters of its own")
    def test_the_device_counts_the_printed_peak_and_no_allocation_after_the_first_step(self):
        def counted(steps):
            printed, _, talk = self.train_measured(steps)
            found = re.search(r"emulated device: (\d+) bytes at most, (\d+) allocations", talk)
            return printed, *map(int, found.groups())

        one, seven = counted(1), counted(7)
        self.assertEqual(one, seven)
        self.assertAlmostEqual(one[1] / one[0], 1, delta=0.05)

    @unittest.skipIf(DEVICE == "cpu", "the CPU has no graphs")
    def test_graph_and_eager_steps_end_alike_and_say_which_they_are(self):
        talk = {"graph": self.train(out="graph").stderr,
                "eager": self.train("--set", "run.graph=false", out="eager").stderr}
        sync = {**os.environ, "CAROUSEL_SYNC": "1"}
        talk["waiting"] = run("train", self.here / "config.toml", "--out", self.here / "waiting",
                              env=sync).stderr
        self.assertIn("steps as CUDA graphs", talk["graph"])
        self.assertNotIn("eager", talk["graph"])
        self.assertIn("eager steps", talk["eager"])
        self.assertEqual(talk["waiting"].count("not CUDA graphs: graph: with CAROUSEL_SYNC=1"), 1)
        states = {(self.here / name / "checkpoints/last/state.safetensors").read_bytes()
                  for name in talk}
        self.assertEqual(len(states), 1)
        losses = {tuple(line["loss"] for line in metrics(self.here / name)) for name in talk}
        self.assertEqual(len(losses), 1)

    def test_explain_tells_the_device_the_kernels_and_where_the_memory_goes(self):
        plain = self.train(out="plain")
        told = self.train("--explain", "--set", "model.hidden=18", out="told").stderr
        lines = dict(re.findall(r"^(device|precision|steps|memory): (.*)", told, re.MULTILINE))
        self.assertEqual(set(lines), {"device", "precision", "steps", "memory"})
        number = r"([\d.]+) (KB|MB|GB)"
        units = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
        now, peak, *parts = [float(size) * units[unit]
                             for size, unit in re.findall(number, lines["memory"])]
        self.assertLessEqual(now, peak)
        self.assertGreaterEqual(len(parts), 6)
        self.assertAlmostEqual(sum(parts) / now, 1, delta=0.1)
        tree = told[told.index("what ran:"):]
        for part in ("  training step\n", "    forward\n", "RecurrentSequenceForward<float>\n",
                     "    backward\n", "    optimizer\n"):
            self.assertEqual(tree.count(part), 2 if "Recurrent" in part else 1, part)
        self.assertRegex(tree, r"product \[32, 8\]·\[72, 8\]ᵀ, f32: \w")
        kernels = re.findall(r"kernel (.*?), grid", tree)
        if DEVICE == "cpu":
            self.assertEqual(kernels, [])
            self.assertIn("graphs are CUDA's", lines["steps"])
        else:
            self.assertIn("8 × kernel recurrent_sequence_forward_kernel<Lstm, 0, float>, grid 1 × 64", tree)
            self.assertIn("WeightUpdate<Adam, float>: kernel weight_update_kernel<Adam, float>, ", tree)
            for kernel in kernels:
                self.assertRegex(kernel, r"^[a-z0-9_]+_kernel(<[A-Za-z0-9, ]+>)?$")
            self.assertIn("refused: accesses of 128 bits, for H = 18 is no multiple of 4", tree)
            self.assertIn("refused: tf32 and bf16", lines["precision"])
            eager = self.train("--explain", "--set", "run.graph=false", out="eager").stderr
            self.assertIn("refused: CUDA graphs, for run.graph is false", eager)

        # --explain changes no result, and prints to standard error.
        self.train("--explain", out="again")
        self.assertEqual(*((self.here / out / "checkpoints/last/state.safetensors").read_bytes()
                           for out in ("plain", "again")))
        self.assertNotIn("what ran", plain.stderr)
        for command in (("eval", self.here / "plain", "--data", self.here / "text.txt"),
                        ("generate", self.here / "plain", "--tokens", "5")):
            explained = run(*command, "--explain")
            self.assertEqual(explained.stdout, run(*command).stdout)
            self.assertIn("RecurrentSequenceForward<float>\n", explained.stderr)

    def test_an_interrupt_saves_and_says_how_to_resume(self):
        command = [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run",
                   "--device", DEVICE, "--threads", "1", "--set", "train.steps=1000000"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not (self.here / "run" / "metrics.jsonl").is_file():
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, talk)
        self.assertIn("carousel resume", talk)
        saved = os.readlink(self.here / "run" / "checkpoints" / "last")
        self.assertEqual(int(saved.removeprefix("step-")), metrics(self.here / "run")[-1]["step"])

    # eval and generate.

    def test_eval_prints_nats_bits_and_perplexity(self):
        self.train()
        text = run("eval", self.here / "run", "--data", self.here / "text.txt").stdout
        for word in ("nats", "bits", "perplexity"):
            self.assertIn(word, text)
        result = json.loads(run("eval", self.here / "run", "--data", self.here / "text.txt",
                                "--json").stdout)
        self.assertAlmostEqual(result["bits_per_token"], result["nats_per_token"] / 0.693147, 4)
        self.assertEqual(result["tokens"], len(TEXT) - 1)

    def test_eval_reads_one_stream_unless_told_to_cut_it_into_rows(self):
        self.train()
        data = ("eval", self.here / "run", "--data", self.here / "text.txt")

        def nats(*more):
            result = json.loads(run(*data, "--json", *more).stdout)
            self.assertEqual(result["tokens"], len(TEXT) - 1)
            return result["rows"], result["nats_per_token"]

        rows, one = nats()
        self.assertEqual(rows, 1)
        for window in (3, len(TEXT) * 2):  # the second has all tokens in one window
            of_window = nats("--set", f"train.window={window}", "--set", "train.batch=1")[1]
            self.assertAlmostEqual(of_window, one, delta=1e-6)
        rows, four = nats("--rows", 4)
        self.assertEqual(rows, 4)
        self.assertGreater(abs(four - one), 1e-5)
        self.assertIn("in 4 rows", run(*data, "--rows", 4).stdout)
        self.assertNotIn("rows", run(*data).stdout)
        self.assert_one_line(run(*data, "--rows", 0, status=1), "--rows is 0")

    def test_predict_is_for_models_that_label(self):
        self.train()
        refused = run("predict", self.here / "run", status=1, input="the\n")
        self.assert_one_line(refused, "predict", "recurrent_lm", "generate")

    def test_generate_prints_the_text_alone_and_repeats_by_seed(self):
        self.train()

        def text(*more):
            return run("generate", self.here / "run", "--tokens", 30, *more).stdout

        one = text("--prompt", "the ", "--seed", 5)
        self.assertTrue(one.startswith("the "))
        self.assertEqual(len(one.rstrip("\n")), len(one) - 1)
        self.assertEqual(one, text("--prompt", "the ", "--seed", 5))
        self.assertNotEqual(one, text("--prompt", "the ", "--seed", 6))
        self.assertEqual(text("--greedy", "--seed", 5), text("--greedy", "--seed", 6))
        self.assertEqual(text("--greedy"), text("--top-k", 1))

    def test_unknown_characters_of_a_prompt_are_reported(self):
        self.train()
        result = run("generate", self.here / "run", "--tokens", 5, "--prompt", "the \u00e9\u4e16")
        self.assertIn("2", result.stderr)
        self.assertIn("<unk>", result.stderr)
        self.assertTrue(result.stdout.startswith("the \u00e9\u4e16"))

    def test_models_lists_kinds_and_options(self):
        listed = run("models").stdout
        for part in ('model.kind = "recurrent_lm"', 'data.kind = "text"', 'data.kind = "labelled"',
                     "document_end", "split_seed", "learning_rate"):
            self.assertIn(part, listed)
        listed = json.loads(run("models", "--json").stdout)
        kinds = {entry["kind"]: entry for entry in listed["models"]}
        self.assertIn("generate", kinds["recurrent_lm"]["commands"])
        self.assertIn("predict", kinds["classifier"]["commands"])
        self.assertEqual(kinds["classifier"]["data"], ["labelled"])
        self.assertEqual([data["kind"] for data in listed["data"]], ["labelled", "pairs", "text"])
        sections = {section["section"]: section for section in listed["sections"]}
        options = {f"{name}.{option['key']}": option
                   for name, section in [("model", kinds["recurrent_lm"]), ("data", listed["data"][2]),
                                         *sections.items()]
                   for option in section["options"]}
        # All that a config has, with the defaults that it has.
        config = self.here / "least.toml"
        config.write_text('[model]\nkind = "recurrent_lm"\n[data]\ntext = "text.txt"\n[train]\n'
                          "steps = 1\nbatch = 2\nwindow = 4\n")
        run("train", config, "--out", self.here / "least")
        written = tomllib.loads((self.here / "least/config.toml").read_text())
        self.assertEqual(sorted(f"{section}.{key}" for section in written for key in written[section]),
                         sorted(options))
        for section, key in ((s, k) for s in written for k in written[s]):
            if f"{section}.{key}" not in ("model.kind", "data.text", "train.steps", "train.batch",
                                          "train.window", "data.newline", "run.device",
                                          "run.threads"):
                self.assertEqual(options[f"{section}.{key}"]["default"], written[section][key], key)
        hidden, dropout = options["model.hidden"], options["model.dropout"]
        self.assertEqual((hidden["type"], hidden["least"]), ("integer", 1))
        self.assertEqual((dropout["type"], dropout["least"], dropout["below"]), ("number", 0, 1))
        self.assertEqual(options["data.tokens"]["choices"], ["byte", "char", "word", "sentencepiece", "byte_bpe"])
        self.assertTrue(options["data.text"]["required"])
        self.assertIsNone(options["data.text"]["default"])

    # compare.

    def compare(self, path, *more, **options):
        return run("compare", path, "--threads", 1, *more, **options)

    def test_compare_passes_over_twenty_steps_and_leads_with_the_verdict(self):
        config = self.here / "config.toml"
        for more in (("--devices", f"cpu,{DEVICE}"),
                     ("--devices", f"cpu,{DEVICE}", "--precision", "bf16"),
                     ("--devices", DEVICE, "--precisions", "f32,bf16")):
            with self.subTest(more):
                result = self.compare(config, "--set", "model.dropout=0.3", *more)
                lines = result.stdout.splitlines()
                self.assertTrue(lines[0].startswith("PASS"), lines[0])
                self.assertIn("over 20 steps", lines[0])
                self.assertIn("gradient of lstm layer 1, gate f", result.stdout)
        self.assertEqual(sorted(p.name for p in self.here.iterdir()), ["config.toml", "text.txt"])

    def test_compare_fails_where_the_record_differs_and_says_where(self):
        self.train("--precision", "bf16")
        folder = self.here / "run"
        self.assertIn("PASS", self.compare(folder, "--device", DEVICE).stdout)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        third = json.loads(lines[2])
        self.assertEqual(third["step"], 4)
        third["loss"] *= 1.5
        lines[2] = json.dumps(third)
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        result = self.compare(folder, "--device", DEVICE, status=1)
        first = result.stdout.splitlines()[0]
        self.assertIn("FAIL  first wrong, in step 4, replay: mean loss", first)
        result = json.loads(self.compare(folder, "--device", DEVICE, "--json", status=1).stdout)
        self.assertFalse(result["holds"])
        self.assertEqual(result["first_wrong"]["step"], 4)

    def test_compare_replays_a_recorded_run_to_the_last_bit(self):
        self.train()
        result = json.loads(self.compare(self.here / "run", "--device", DEVICE, "--json").stdout)
        self.assertTrue(result["holds"])
        self.assertEqual(result["steps"], 12)
        self.assertEqual([t["largest"]["error"] for t in result["tensors"]], [0, 0, 0])
        # The learning rate is the first value that differs.
        first = self.compare(self.here / "run", "--device", DEVICE, "--set",
                             "optimizer.learning_rate=2e-2", status=1).stdout.splitlines()[0]
        self.assertIn("in step 1, replay: learning rate", first)

    def test_compare_finds_no_bit_between_eager_steps_and_graphs(self):
        config = self.here / "config.toml"
        modes = ("--modes", "eager,graph", "--device", DEVICE)
        if DEVICE == "cpu":
            self.assert_one_line(self.compare(config, *modes, status=1), "--modes", "CPU", "cuda")
            return
        # The state is carried through windows of 8 time steps; an epoch's last is shorter.
        for more in ((), ("--precision", "bf16")):
            with self.subTest(more):
                lines = self.compare(config, *modes, *more).stdout.splitlines()
                self.assertTrue(lines[0].startswith("PASS"), lines[0])
                self.assertIn("over 20 steps, to the last bit", lines[0])
                self.assertRegex(lines[1], "1[5-9] of .* graph's 20 steps were launches of . graph")
                self.assertIn("lstm layer 1, gate", lines[2])
        result = json.loads(self.compare(config, *modes, "--steps", 3, "--json").stdout)
        self.assertEqual((result["graph"]["graphs"], result["graph"]["steps"]), (1, 2))
        self.assertEqual({t["largest"]["error"] for t in result["tensors"]}, {0})
        # Without a graph there is nothing to compare.
        self.assertIn("carousel: --steps is 1, and no shape of a step came twice",
                      self.compare(config, *modes, "--steps", 1, status=1).stderr)
        refused = self.compare(config, *modes, status=1, env=dict(os.environ, CAROUSEL_SYNC="1"))
        self.assertRegex(refused.stderr, "carousel: .* cannot be a graph here: .*with CAROUSEL_SYNC=1")
        self.assertEqual(refused.stdout, "")

    def test_compare_writes_json(self):
        result = json.loads(self.compare(self.here / "config.toml", "--devices", f"cpu,{DEVICE}",
                                         "--steps", 3, "--json").stdout)
        self.assertTrue(result["holds"])
        self.assertIsNone(result["first_wrong"])
        self.assertEqual((result["a"], result["b"], result["steps"]),
                         ("cpu f32", f"{DEVICE} f32", 3))
        gate = next(t for t in result["tensors"] if t["tensor"] == "lstm layer 1, gate f")
        self.assertEqual(gate["phase"], "forward")
        self.assertEqual(len(gate["of_tolerance_by_time_step"]), 8)
        self.assertLess(result["drift"]["weights"], 1e-4)

    def test_compare_without_sides_takes_what_the_build_has(self):
        talk = self.compare(self.here / "config.toml", "--steps", 1).stderr
        self.assertRegex(talk, "cpu f32 .*(cuda f32|cpu bf16)")

    def test_compare_mistakes(self):
        config = self.here / "config.toml"
        for more, parts in ((("--steps", 0), ("--steps", "0")),
                            (("--devices", "cpu,cpu,cpu"), ("--devices", "3")),
                            (("--devices", "cpu,gpu"), ("--devices cpu,gpu is gpu",)),
                            (("--device", "gpu"), ("--device gpu is gpu",)),
                            (("--precisions", "f32,f16"), ("--precisions f32,f16 is f16",)),
                            (("--device", "cpu", "--precision", "bf16"), ("--devices",)),
                            (("--modes", "graph"), ("--modes is graph", "eager,graph")),
                            (("--modes", "eager,graph", "--devices", "cpu,cuda"), ("cpu,cuda",)),
                            (("--devices", "cpu", "--precisions", "tf32"), ("tf32",))):
            with self.subTest(more):
                self.assert_one_line(self.compare(config, *more, status=1), *parts)
        self.compare(config, "--device", "cpu", "--devices", "cpu,cpu", status=2)
        self.assert_one_line(self.compare(self.here / "none", status=1), "none")
        self.assert_one_line(self.compare(self.here, status=1), "metrics.jsonl")
        self.train()
        (self.here / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
        self.assert_one_line(self.compare(self.here / "run", "--device", DEVICE, status=1),
                             "metrics.jsonl:1", "loss")


if __name__ == "__main__":
    main()
