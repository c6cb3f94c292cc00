#!/usr/bin/env python3
"""Tests the driver where the world fails it: streams that cannot be written, full disks, signals,
folders that go away, forged files.

    driver_faults_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import CAROUSEL, CONFIG, DEVICE, SANITIZED, TEXT, DriverCase, main, metrics, run


class DriverFaultsTest(DriverCase):
    FILES = {"text.txt": TEXT, "config.toml": CONFIG}

    def shell(self, streams, command, *arguments):
        """Runs the driver with its standard streams redirected by a shell."""
        words = [CAROUSEL, command, *map(str, arguments)]
        if command != "models":
            words += ["--device", DEVICE, "--threads", "1"]
        return subprocess.run(["sh", "-c", f'exec "$@" {streams}', "sh", *words],
                              capture_output=True, text=True, timeout=300)

    def state(self, out="run"):
        return (self.here / out / "checkpoints/last/state.safetensors").read_bytes()

    # Standard streams.

    def test_training_needs_no_standard_stream(self):
        self.train(out="plain")
        config = self.here / "config.toml"
        for i, streams in enumerate(("2>/dev/full", "2>&-", "<&- >&- 2>&-")):
            with self.subTest(streams):
                out = f"run-{i}"
                result = self.shell(streams, "train", config, "--out", self.here / out,
                                    "--set", "train.sample_every=5")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(self.state(out), self.state("plain"))
                self.assertEqual([line["step"] for line in metrics(self.here / out)],
                                 [1, 2, 4, 5, 6, 8, 10, 12])
                self.assertEqual((self.here / out / ".lock").read_bytes(), b"")

    def test_training_goes_on_when_the_reader_of_its_talk_goes_away(self):
        self.train(out="plain")
        process = subprocess.Popen(
            [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run", "--device",
             DEVICE, "--threads", "1"], stderr=subprocess.PIPE)
        process.stderr.close()
        self.assertEqual(process.wait(timeout=300), 0)
        self.assertEqual(self.state(), self.state("plain"))

    def test_output_that_cannot_be_written_is_an_error(self):
        self.train()
        here, data = self.here / "run", ("--data", self.here / "text.txt")
        commands = (("generate", here, "--tokens", "9"), ("generate", here, "--json"),
                    ("eval", here, *data), ("eval", here, *data, "--json"), ("models",),
                    ("models", "--json"), ("compare", here, "--steps", "1"), ("models", "--help"))
        for command in commands:
            for streams, why in ((">/dev/full", "No space left on device"),
                                 (">&-", "Bad file descriptor")):
                with self.subTest(command=command, streams=streams):
                    result = self.shell(streams, *command)
                    self.assertEqual(result.returncode, 1)
                    self.assertEqual(result.stderr.splitlines()[-1],
                                     f"carousel: writing standard output: {why}")
        # A reader that has read enough is no error to shout about.
        result = subprocess.run(f"'{CAROUSEL}' generate '{here}' --tokens 100000 | head -c 1",
                                shell=True, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stderr, r"^generate: checkpoint \w+, step \d+\n$")

    def test_an_error_without_a_place_to_tell_it_is_still_a_status(self):
        for streams in ("2>/dev/full", "2>&-"):
            self.assertEqual(self.shell(streams, "generate", self.here / "none").returncode, 1)

    # Training.

    def test_a_validation_loss_that_is_no_number_is_said(self):
        (self.here / "text.txt").write_text(TEXT + "Z\n")
        self.train(out="before")
        file = self.here / "weights.safetensors"
        words, tensors = safetensors_file.read(
            self.here / "before/checkpoints/last/model.safetensors")
        letters = [line.split("\t")[0] for line in words["carousel.vocabulary"].splitlines()[1:]]
        dtype, shape, block = tensors["embedding.weight"]
        at, row = letters.index("Z"), 4 * shape[1]
        nan = struct.pack("<f", float("nan")) * shape[1]
        safetensors_file.write(file, tensors | {
            "embedding.weight": (dtype, shape, block[:at * row] + nan + block[(at + 1) * row:])})
        result = self.train("--set", f"model.weights={file}", status=1)
        self.assertEqual(result.stderr.splitlines()[-1],
                         "carousel: the validation loss of step 12 is nan, no finite number; the "
                         "weights are finite and saved")
        self.assertEqual([line.get("validation_loss") for line in metrics(self.here / "run")][-1],
                         "nan")
        self.assertFalse((self.here / "run/checkpoints/best").exists())

    def test_text_that_no_checkpoint_can_hold_is_refused_before_the_first_step(self):
        name = os.fsdecode(b"te\xffxt.txt")
        (self.here / name).write_text(TEXT)
        result = self.train("--set", f"data.text={self.here / name}", status=1)
        self.assert_one_line(result, "text is", r"te\xFFxt.txt", "expected UTF-8")
        self.assertFalse((self.here / "run").exists())

    def interrupted(self, meanwhile):
        """A long run whose folder meets something, and which is then told to stop."""
        shutil.rmtree(self.here / "run", ignore_errors=True)
        process = subprocess.Popen(
            [CAROUSEL, "train", self.here / "config.toml", "--out", self.here / "run", "--device",
             DEVICE, "--threads", "1", "--set", "train.steps=1000000", "--set",
             "train.save_every=0", "--set", "train.evaluate_every=0"],
            stderr=subprocess.PIPE, text=True)
        lines = self.here / "run" / "metrics.jsonl"
        while not (lines.is_file() and lines.stat().st_size > 300):
            time.sleep(0.01)
        meanwhile(self.here / "run")
        process.send_signal(signal.SIGINT)
        talk = process.communicate(timeout=120)[1]
        return process.returncode, talk

    def expect_resumable(self, folder):
        saved = int(os.readlink(folder / "checkpoints/last").removeprefix("step-"))
        steps = [line["step"] for line in metrics(folder)]
        self.assertEqual((steps[0], steps[-1]), (1, saved))
        run("train", folder / "config.toml", "--out", folder, "--resume", "--set",
            f"train.steps={saved + 1}")

    def test_a_run_whose_folder_was_renamed_or_removed_is_saved(self):
        other = self.here / "other"
        status, talk = self.interrupted(lambda folder: folder.rename(other))
        self.assertEqual(status, 130)
        self.assertIn(f"is {other} now", talk)
        self.assertFalse((self.here / "run").exists())
        self.expect_resumable(other)

        status, talk = self.interrupted(shutil.rmtree)
        self.assertEqual(status, 130)
        self.assertIn("run was removed; the run goes on in a new one", talk)
        self.expect_resumable(self.here / "run")

    def test_the_line_that_says_how_to_go_on_works_as_it_is_printed(self):
        folder = self.here / "it's a run"
        status, talk = self.interrupted(lambda run: run.rename(folder))
        self.assertEqual(status, 130)
        self.assertTrue(talk.splitlines()[-2].endswith("to go on:"), talk)
        command = talk.splitlines()[-1].strip()
        saved = int(os.readlink(folder / "checkpoints/last").removeprefix("step-"))
        os.symlink(pathlib.Path(CAROUSEL).resolve(), self.here / "carousel")
        shell = {"env": {**os.environ, "PATH": f"{self.here}:{os.environ['PATH']}"}, "shell": True,
                 "capture_output": True, "text": True}
        # As it is, it would go on for long.
        result = subprocess.run(f"{command} --set train.steps={saved + 2} --set "
                                "optimizer.learning_rate=1e-3", timeout=120, **shell)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f"resumed with train.steps is {saved + 2}, was 1000000; "
                      "optimizer.learning_rate is 0.001, was 0.01\n", result.stderr)
        self.assertIn("the learning rate goes on at 0.001, not 0.01\n", result.stderr)
        config = (folder / "config.toml").read_text()
        self.assertIn("save_every = 0", config)
        result = subprocess.run(command, timeout=120, **shell)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f"has done its {saved + 2} steps", result.stderr)
        self.assertEqual((folder / "config.toml").read_text(), config)

    def test_a_new_run_whose_first_save_fails_is_not_taken_away(self):
        status, talk = self.interrupted(lambda folder: (folder / "checkpoints").write_text("mine"))
        self.assertEqual(status, 1)
        self.assertIn("there is no earlier checkpoint", talk.splitlines()[-1])
        self.assertGreater(len(metrics(self.here / "run")), 2)

    # Forged files.

    def forge(self, name, change, out="forged"):
        """A copy of the run, one of whose checkpoint's files has other metadata."""
        shutil.rmtree(self.here / out, ignore_errors=True)
        shutil.copytree(self.here / "run", self.here / out, symlinks=True)
        file = self.here / out / "checkpoints/last" / name
        words, tensors = safetensors_file.read(file)
        file.unlink()
        safetensors_file.write(file, tensors, words | change(words))
        return self.here / out

    def test_a_checkpoint_is_held_against_its_config_before_memory_is_taken(self):
        self.train()

        def change(words):
            config = words["carousel.config"].replace("hidden = 16", "hidden = 10000")
            self.assertNotEqual(config, words["carousel.config"])
            return {"carousel.config": config}

        forged = self.forge("model.safetensors", change)
        code = ("import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)")
        result = subprocess.run([sys.executable, "-c", code, CAROUSEL, "generate", forged],
                                capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn("'lstm.weight_ih_l0' is F32 [64, 8], expected [40000, 8]", result.stderr)
        if not SANITIZED:
            self.assertLess(int(result.stdout), 300_000)  # KB

    def test_a_forged_checkpoint_is_refused_in_one_line(self):
        self.train("--set", "train.steps=6")
        deep = lambda words: {"carousel.config": "a." * 40000 + "a = 1"}
        self.assert_one_line(run("generate", self.forge("model.safetensors", deep), status=1),
                             "a key of more than 8 parts")
        for name, value in (("tokens", "-1"), ("plateau.factor", "nan"), ("plateau.factor", "2"),
                            ("plateau.bad_evaluations", "-7"), ("best_loss", "nan"),
                            ("data.index", "-1"), ("data.epoch", "-3"), ("data.epoch", "1e3"),
                            ("evaluated", "7"), ("evaluations_without_best", "9" * 17),
                            ("tokens", "")):
            with self.subTest(name=name, value=value):
                def change(words):
                    return {"scalars": json.dumps(json.loads(words["scalars"]) | {name: value})}
                forged = self.forge("state.safetensors", change)
                result = self.train("--resume", out=forged, status=1)
                self.assert_one_line(result, f"scalar '{name}' is '{value}', expected")
        result = self.train("--resume", status=1, out=self.forge(
            "state.safetensors", lambda words: {"scalars": "[" * 99999}))
        self.assert_one_line(result, "scalars are not a JSON object")
        forged = self.forge("model.safetensors", lambda words: {"step": "-5"})
        state = forged / "checkpoints/last/state.safetensors"
        words, tensors = safetensors_file.read(state)
        state.unlink()
        safetensors_file.write(state, tensors, words | {"step": "-5"})
        self.assert_one_line(run("generate", forged, status=1), "step is '-5'")

    def test_metrics_of_other_types_are_refused_or_passed_over(self):
        self.train("--set", "train.steps=6")
        file = self.here / "run/metrics.jsonl"
        file.write_text(file.read_text().replace('"seconds":', '"seconds":"long","was":'))
        self.train("--resume")

    def test_a_pipe_in_place_of_a_file_is_refused_at_once(self):
        self.train()
        pipe = self.here / "pipe"
        os.mkfifo(pipe)
        folder = self.here / "folder"
        folder.mkdir()
        os.mkfifo(folder / "model.safetensors")
        for command in (("train", self.here / "config.toml", "--out", self.here / "new", "--set",
                         f"model.weights={pipe}"),
                        ("train", self.here / "config.toml", "--out", self.here / "new", "--set",
                         f"data.text={pipe}"),
                        ("eval", self.here / "run", "--data", pipe), ("generate", folder)):
            with self.subTest(command[0]):
                self.assert_one_line(run(*command, status=1), "is not a regular file")


if __name__ == "__main__":
    main()
