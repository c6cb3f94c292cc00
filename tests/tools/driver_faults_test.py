#!/usr/bin/env python3
"""Tests the driver where the world fails it: streams that cannot be written, full disks, signals,
folders that go away, forged files.

    driver_faults_test.py CAROUSEL DEVICE [TEST...]
"""

import pathlib
import struct
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver_test import CONFIG, TEXT
from driver import CAROUSEL, DEVICE, DriverCase, main, metrics, run


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
        self.assertEqual((result.returncode, result.stderr), (0, ""))

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


if __name__ == "__main__":
    main()
