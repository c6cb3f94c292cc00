#!/usr/bin/env python3
"""A run that is killed and resumed ends with the same bits as an uninterrupted run.

    crash_test.py CAROUSEL KILL_AT_CALL DEVICE [TEST...]

Kills come at random moments and, by ptrace, at every system call that changes files: of a run's
start, and of a save that moves both links and removes an old checkpoint.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

CAROUSEL, KILL_AT_CALL, DEVICE = sys.argv[1:4]

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
steps = {steps}
batch = 4
window = 8
report_every = 1
evaluate_every = {evaluate_every}
save_every = {save_every}
[optimizer]
kind = "adamw"
learning_rate = 1e-2
clip_norm = 1.0
[schedule]
kind = "cosine"
warm_up = 3
"""
FITTED = """
[model]
kind = "kneser_ney"
sort_bytes = 65536
[data]
text = "text.txt"
tokens = "char"
"""
ATTENDING = CONFIG.replace("hidden = 16", "hidden = 16\nheads = 2")
TRANSLATING = ATTENDING.replace("window = 8\n", "").replace("[data]", '[data]\nkind = "pairs"')
MODELS = {  # with their texts; each has dropout
    "transformer_lm": (ATTENDING.replace("heads = 2", "heads = 2\ncontext = 8"), "the {0} ships of {1}\n"),
    "transformer_seq2seq": (TRANSLATING, "{0} ships\t{1} of {0}\n"),
    "seq2seq": (TRANSLATING.replace("heads = 2", "input_feeding = true"), "{0} ships\t{1} of {0}\n")}
TEXT = "".join(f"the {n} little ships sail round the isle of {n * n % 7}\n" for n in range(20))

# LeakSanitizer cannot work under ptrace.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


class Outcome:
    """Everything in a finished run that must not depend on the number of kills."""

    TIMES = ("seconds", "tokens_per_second")

    def __init__(self, run):
        checkpoints = run / "checkpoints"
        self.links = {name: os.readlink(checkpoints / name) for name in ("last", "best")}
        self.kept = sorted(p.name for p in checkpoints.iterdir() if not p.name.startswith("."))
        self.files = {str(p.relative_to(run)): p.read_bytes()
                      for p in sorted(checkpoints.glob("step-*/*.safetensors"))}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.metrics = [{k: v for k, v in line.items() if k not in self.TIMES} for line in lines]
        self.leftovers = [str(p) for p in run.rglob(".*.tmp.*")]


class Run:
    """A run that is started, killed and resumed, and the same run without interruption."""

    def __init__(self, here, steps, save_every, config=CONFIG, text=TEXT):
        self.steps, self.save_every = steps, save_every
        self.folder = here / "run"
        self.config = here / "config.toml"
        here.mkdir()
        (here / "text.txt").write_text(text)
        self.config.write_text(config.format(steps=steps, save_every=save_every,
                                             evaluate_every=2 * save_every))
        self.finish()
        self.unbroken = Outcome(self.folder)
        assert [line["step"] for line in self.unbroken.metrics] == list(range(1, steps + 1))

    def forget(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self):
        """The command that a user would type next: with --resume once there is a run."""
        resume = ["--resume"] if self.folder.exists() else []
        return [CAROUSEL, "train", str(self.config), "--out", str(self.folder), "--device", DEVICE,
                "--threads", "1", *resume]

    def finish(self):
        command = self.command()
        result = subprocess.run(command, capture_output=True, text=True, timeout=900,
                                env=ENVIRONMENT)
        if result.returncode != 0:
            raise AssertionError(f"{command} returned {result.returncode}: {result.stderr}")

    def kill_when(self, moment):
        """Starts the run and kills it when `moment()` is true; False if it ended before."""
        process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        while process.poll() is None and not moment():
            time.sleep(0.001)
        process.kill()
        return process.wait() != 0

    def traced(self, text, at):
        """A new run, killed at call number `at`, counted from the first whose path contains `text`."""
        self.forget()
        return subprocess.run([KILL_AT_CALL, text, str(at), *self.command()], env=ENVIRONMENT,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def calls_from(self, text):
        result = self.traced(text, -1)
        assert result.returncode == 0, result.returncode
        return int(result.stdout)

    def reported(self):
        try:
            return (self.folder / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def last_step(self):
        try:
            return int(os.readlink(self.folder / "checkpoints/last").removeprefix("step-"))
        except FileNotFoundError:
            return 0


class CrashCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.here = pathlib.Path(cls.temporary.name)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def expect_unbroken_outcome(self, run):
        run.finish()
        outcome, unbroken = Outcome(run.folder), run.unbroken
        self.assertEqual(outcome.links, unbroken.links)
        self.assertEqual(outcome.kept, unbroken.kept)
        self.assertEqual(outcome.metrics, unbroken.metrics)
        self.assertEqual(outcome.files.keys(), unbroken.files.keys())
        for name, content in outcome.files.items():
            self.assertTrue(content == unbroken.files[name], f"{name} differs")
        self.assertEqual(outcome.leftovers, [])

    def skip_where_tracing_is_forbidden(self):
        command = [KILL_AT_CALL, "nothing", "-1", sys.executable, "--version"]
        if subprocess.run(command, capture_output=True).returncode == 126:
            self.skipTest("this machine forbids ptrace")


class CrashTest(CrashCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.long = Run(cls.here / "long", 200, 10)
        cls.short = Run(cls.here / "short", 6, 2)

    def test_an_unbroken_run_repeats(self):
        self.short.forget()
        self.expect_unbroken_outcome(self.short)

    def test_only_a_run_is_resumed(self):
        """A mistyped folder is not written into, though a run without a checkpoint may be."""
        run = self.short
        run.forget()
        run.folder.mkdir()
        (run.folder / "letter.txt").write_text("Dear")
        result = subprocess.run(run.command(), capture_output=True, text=True, env=ENVIRONMENT)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is not the folder of a run", result.stderr)
        self.assertEqual([p.name for p in run.folder.iterdir()], ["letter.txt"])

    def test_half_a_run_killed_and_resumed(self):
        run = self.long
        run.forget()
        self.assertTrue(run.kill_when(lambda: run.last_step() >= run.steps // 2))
        self.assertLess(run.last_step(), run.steps)
        self.expect_unbroken_outcome(run)

    def test_kills_at_random_moments(self):
        run, chance, unfinished = self.long, random.Random(41), 0
        kills = 20
        for kill in range(kills):
            run.forget()
            for _ in range(1 + kill % 3):  # some runs are killed again after they were resumed
                begin, wait = chance.randrange(run.steps * 9 // 10), chance.uniform(0, 0.02)
                if not run.kill_when(lambda: run.reported() >= begin and not time.sleep(wait)):
                    break
            last = run.last_step()
            unfinished += last < run.steps
            with self.subTest(kill=kill, last=last):
                self.expect_unbroken_outcome(run)
        self.assertGreater(unfinished, kills // 2)

    def test_a_kill_at_every_system_call_of_a_save(self):
        self.skip_where_tracing_is_forbidden()
        run, step = self.short, self.short.save_every
        begin = f".step-{2 * step}.tmp."
        calls = run.calls_from(begin) - run.calls_from(f".step-{3 * step}.tmp.")
        self.assertGreater(calls, 30)
        for at in range(calls):
            with self.subTest(call=at, of=calls):
                self.assertEqual(run.traced(begin, at).returncode, 137)
                self.assertIn(run.last_step(), (step, 2 * step))
                self.expect_unbroken_outcome(run)

    def test_a_kill_at_every_system_call_before_the_first_save(self):
        self.skip_where_tracing_is_forbidden()
        run = self.short
        begin = str(run.folder)
        calls = run.calls_from(begin) - run.calls_from(f".step-{run.save_every}.tmp.")
        self.assertGreater(calls, 5)
        for at in range(calls):
            with self.subTest(call=at, of=calls):
                self.assertEqual(run.traced(begin, at).returncode, 137)
                self.assertEqual(run.last_step(), 0)
                self.expect_unbroken_outcome(run)

    @unittest.skipUnless(DEVICE == "cpu", "counts are fitted on the CPU")
    def test_a_fit_killed_at_every_system_call(self):
        """Sorting goes through temporary files, for the memory it is given is small."""
        self.skip_where_tracing_is_forbidden()
        run = Run(self.here / "fitted", 1, 1, FITTED, TEXT * 12)
        begin = str(run.folder)
        self.assertGreater(run.calls_from(".sorting.tmp."), 0)
        calls = run.calls_from(begin)
        self.assertGreater(calls, 40)
        for at in range(calls):
            with self.subTest(call=at, of=calls):
                self.assertEqual(run.traced(begin, at).returncode, 137)
                self.assertIn(run.last_step(), (0, 1))
                self.expect_unbroken_outcome(run)


class CrashOfModelsTest(CrashCase):
    def test_each_that_attends_is_killed_in_a_save_and_resumed(self):
        self.skip_where_tracing_is_forbidden()
        for kind, (config, line) in MODELS.items():
            with self.subTest(kind):
                text = "".join(line.format(n % 7, n * n % 5) for n in range(24))
                run = Run(self.here / kind, 4, 2, config.replace("recurrent_lm", kind), text)
                self.assertEqual(run.traced(".step-4.tmp.", 1).returncode, 137)
                self.assertEqual(run.last_step(), 2)
                self.expect_unbroken_outcome(run)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
