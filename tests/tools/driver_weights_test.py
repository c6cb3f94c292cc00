#!/usr/bin/env python3
"""The driver with weights from files: those that training begins with, and weights alone as a run.

    driver_weights_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import pathlib
import shutil
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import CLASSIFIER, CONFIG, EXAMPLES, TEXT, DriverCase, main, metrics, run


class DriverWeightsTest(DriverCase):
    FILES = {"text.txt": TEXT, "config.toml": CONFIG, "words.tsv": EXAMPLES}

    def model_file(self, out="run"):
        return self.here / out / "checkpoints/last/model.safetensors"

    # Training begins with them.

    def test_training_begins_with_the_weights_of_a_file(self):
        self.train()
        file = self.here / "run/checkpoints/last/model.safetensors"
        weights = f"model.weights={file}"
        result = self.train("--set", weights, "--set", "train.steps=1", "--set",
                            "optimizer.learning_rate=0", out="same")
        self.assertIn(str(file), result.stderr)
        same = self.here / "same/checkpoints/last/model.safetensors"
        self.assertEqual(safetensors_file.read(same)[1], safetensors_file.read(file)[1])
        self.train("--set", weights, "--precision", "bf16", out="rounded")  # reads the copies
        losses = [metrics(self.here / name)[0]["loss"] for name in ("run", "same", "rounded")]
        self.assertLess(losses[1], losses[0] - 0.1)
        self.assertAlmostEqual(losses[2], losses[1], delta=0.02)

    def test_a_resumed_run_needs_no_weights_to_begin_with(self):
        self.train(out="before")
        file = self.here / "weights.safetensors"
        (self.here / "before/checkpoints/last/model.safetensors").resolve().rename(file)
        weights = ("--set", f"model.weights={file}")
        self.train(*weights)
        self.train(*weights, "--set", "train.steps=6", out="short")
        file.unlink()
        self.train(*weights, "--resume", out="short")
        run("eval", self.here / "short", "--data", self.here / "text.txt")
        last = [(self.here / name / "checkpoints/last/state.safetensors").read_bytes()
                for name in ("run", "short")]
        self.assertEqual(last[0], last[1])

    def test_weights_that_do_not_fit(self):
        self.train(out="before")
        good = self.here / "before/checkpoints/last/model.safetensors"
        metadata, tensors = safetensors_file.read(good)
        name, (dtype, shape, block) = "lstm.weight_hh_l1", tensors["lstm.weight_hh_l1"]
        self.assertEqual((dtype, shape), ("F32", [64, 16]))
        without = {n: t for n, t in tensors.items() if n != name}
        other = metadata["carousel.vocabulary"].replace("\ns\t", "\nS\t")
        self.assertNotEqual(other, metadata["carousel.vocabulary"])
        cases = [(without, {}, ("missing " + name,)),
                 (tensors | {"extra": ("F32", [1], bytes(4))}, {}, ("unexpected extra",)),
                 (without | {"model." + name: tensors[name]}, {},
                  ("missing " + name, "unexpected model." + name)),
                 (tensors | {name: (dtype, [16, 64], block)}, {},
                  (f"'{name}' is F32 [16, 64], expected F32 [64, 16]",)),
                 (tensors | {name: ("F64", shape, block * 2)}, {},
                  (f"'{name}' is F64 [64, 16], expected F32",)),
                 (tensors, {"carousel.vocabulary": other}, ("'S', expected 's'", "data.text"))]
        file = self.here / "weights.safetensors"
        for content, words, parts in cases:
            with self.subTest(parts[0]):
                safetensors_file.write(file, content, words)
                result = self.train("--set", f"model.weights={file}", status=1)
                self.assert_one_line(result, file, *parts)
                self.assertFalse((self.here / "run").exists())
        # The file is opened before the text is read.
        (self.here / "text.txt").unlink()
        for content, part in ((None, "No such file"), (b"", "0 bytes"),
                              (good.read_bytes()[:-7], "model.safetensors")):
            with self.subTest(part):
                file = self.here / "model.safetensors"
                if content is not None:
                    file.write_bytes(content)
                result = self.train("--set", f"model.weights={file}", status=1)
                self.assert_one_line(result, file, part)

    def still(self, *options, out="tuned", **more):
        """Begins on another text, one step that changes nothing."""
        other = self.here / "other.txt"
        other.write_text("a zebra sails, said the Zoo\n" * 30)
        return self.train("--set", f"data.text={other}", "--set", "train.steps=1", "--set",
                          "optimizer.learning_rate=0", *options, out=out, **more)

    def test_a_run_goes_on_with_another_text_in_the_vocabulary_of_the_first(self):
        self.train()
        source = self.here / "run"
        taken = ("--set", f"data.vocabulary={source}", "--set", f"model.weights={source}")
        self.assertIn("<unk>", self.still(*taken).stderr)  # Z was not in the first text
        before, after = (safetensors_file.read(self.model_file(out)) for out in ("run", "tuned"))
        self.assertEqual(after[1], before[1])
        self.assertEqual(after[0]["carousel.vocabulary"], before[0]["carousel.vocabulary"])
        # A vocabulary's own file does as well.
        file = self.here / "tokens.txt"
        file.write_text(before[0]["carousel.vocabulary"])
        self.still("--set", f"data.vocabulary={file}", "--set", f"model.weights={source}", out="same")
        self.assertEqual(safetensors_file.read(self.model_file("same"))[1], before[1])

        self.assert_one_line(self.still(*taken, "--set", "data.tokens=word", out="none", status=1),
                             "data.vocabulary", "'char newline=text", "'word newline=eos")
        self.assert_one_line(self.still("--set", f"data.vocabulary={self.here}/no", out="none",
                                        status=1), "data.vocabulary: opening", f"{self.here}/no")
        self.assertIn("minimum_count = 2 has no effect: data.vocabulary is given",
                      self.still(*taken, "--set", "data.minimum_count=2", out="vain").stderr)
        shutil.rmtree(source)  # a resumed run has all that it needs
        run("resume", self.here / "tuned", "--set", "train.steps=3")

    def test_embeddings_are_carried_over_by_token(self):
        self.train()
        result = self.still("--set", f"model.embedding_from={self.here / 'run'}",
                            "--set", "optimizer.groups=embedding.weight: frozen")

        def rows(out):
            metadata, tensors = safetensors_file.read(self.model_file(out))
            data = tensors["embedding.weight"][2]
            tokens = [line.split("\t")[0] for line in metadata["carousel.vocabulary"].splitlines()[1:]]
            width = len(data) // len(tokens)
            return {token: data[i * width:(i + 1) * width] for i, token in enumerate(tokens)}

        theirs, own = rows("run"), rows("tuned")
        common = theirs.keys() & own.keys()
        self.assertIn(f"{len(common)} of {len(own)} embeddings are those of", result.stderr)
        self.assertTrue(common and own.keys() - common)
        for token in own:
            self.assertEqual(theirs.get(token) == own[token], token in common, token)

        narrow = self.still("--set", f"model.embedding_from={self.here / 'run'}",
                            "--set", "model.embed=4", out="none", status=1)
        self.assert_one_line(narrow, "embedding.weight", self.model_file().resolve().name)
        bare = self.here / "bare.safetensors"
        safetensors_file.write(bare, safetensors_file.read(self.model_file())[1], {})
        self.assert_one_line(self.still("--set", f"model.embedding_from={bare}", out="none", status=1),
                             bare, "no vocabulary")
        compared = run("compare", self.here / "config.toml", "--steps", "2", "--devices", "cpu,cpu",
                       "--set", f"model.embedding_from={self.here / 'run'}")
        self.assertIn("embeddings are those of", compared.stderr)

    def test_an_ngram_model_takes_over_embeddings_and_does_all_that_a_language_model_does(self):
        self.train()
        config = self.here / "config.toml"
        config.write_text(CONFIG.replace("recurrent_lm", "ngram_lm").replace("layers = 2\n", ""))
        embeddings = ("--set", f"model.embedding_from={self.here / 'run'}",
                      "--set", "optimizer.groups=embedding.weight: frozen")
        result = self.train(*embeddings, out="ngram")
        self.assertIn("embeddings are those of", result.stderr)
        blocks = [safetensors_file.read(self.model_file(out))[1]["embedding.weight"]
                  for out in ("run", "ngram")]
        self.assertEqual(*blocks)

        self.train(*embeddings, "--set", "train.steps=8", out="short")
        run("resume", self.here / "short", "--set", "train.steps=12")
        last = [(self.here / name / "checkpoints/last/state.safetensors").read_bytes()
                for name in ("ngram", "short")]
        self.assertEqual(*last)

        text = self.here / "text.txt"
        whole = json.loads(run("eval", self.here / "ngram", "--data", text, "--json").stdout)
        self.assertEqual(whole["tokens"], len(TEXT) - 1)
        line = self.here / "line.txt"
        line.write_text(TEXT.splitlines()[7] + "\n")
        alone = json.loads(run("eval", self.here / "ngram", "--data", line, "--json").stdout)
        score = json.loads(run("score", self.here / "ngram", "--data", line, "--json").stdout)
        self.assertAlmostEqual(score["perplexity"] / alone["perplexity"], 1, places=5)
        written = [run("generate", self.here / "ngram", "--prompt", prompt, "--tokens", "20",
                       "--greedy").stdout[len(prompt):] for prompt in ("the isle of", "ships: isle of")]
        self.assertTrue(written[0])
        self.assertEqual(*written)  # the last four characters count
        run("embed", self.here / "ngram", "--data", line, "--out", self.here / "states.npy")
        self.assertTrue((self.here / "states.npy").exists())

    def test_weights_that_do_not_name_their_tokens_are_taken_with_a_warning(self):
        self.train()
        file = self.here / "weights.safetensors"  # as PyTorch's save_file() writes it
        safetensors_file.write(file, safetensors_file.read(self.model_file())[1])
        for source, warned in ((file, True), (self.model_file(), False)):
            result = self.train("--set", f"model.weights={source}", out=f"from-{source.stem}")
            warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
            self.assertEqual(len(warnings), 1 if warned else 0, result.stderr)
            if warned:
                self.assertIn(str(file), warnings[0])
                self.assertIn("unchecked", warnings[0])
        losses = [(self.here / f"from-{name}/checkpoints/last/state.safetensors").read_bytes()
                  for name in ("weights", "model")]
        self.assertEqual(losses[0], losses[1])

    def test_pytorchs_own_files_are_known_as_such(self):
        # The first bytes of what torch.save() writes, now and before PyTorch 1.6, and of a pickle.
        for name, begins in (("model.pt", b"PK\x03\x04\x00\x00\x08\x08"),
                             ("old.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
                             ("state.bin", b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}")):
            file = self.here / name
            file.write_bytes(begins + bytes(64))
            for result in (self.train("--set", f"model.weights={file}", status=1),
                           run("eval", file, "--data", self.here / "text.txt", status=1)):
                self.assert_one_line(result, file, "PyTorch's own format", "save_file",
                                     f"{file.stem}.safetensors")

    # Without the rest of a run.

    def test_the_weights_alone_are_a_run(self):
        self.train()
        (self.here / "config.toml").write_text(CLASSIFIER)
        self.train(out="classifier")
        text = ("--data", self.here / "text.txt")
        commands = {"run": (("eval", *text), ("generate", "--tokens", 9), ("score", *text)),
                    "classifier": (("predict", *text), ("eval", "--data", self.here / "words.tsv"))}
        for out, commands in commands.items():
            alone = self.here / f"{out}-alone"
            alone.mkdir()
            shutil.copy(self.model_file(out), alone)
            shutil.copy(self.model_file(out), self.here / f"{out}.safetensors")
            expected = [run(name, self.here / out, *more, "--checkpoint", "last")
                        for name, *more in commands]
            shutil.rmtree(self.here / out)
            for path in (alone, alone / "model.safetensors", self.here / f"{out}.safetensors"):
                name = alone.name if path != self.here / f"{out}.safetensors" else path.name
                for (command, *more), want in zip(commands, expected, strict=True):
                    result = run(command, path, *more)
                    self.assertEqual(result.stdout, want.stdout)
                    self.assertEqual(result.stderr,
                                     want.stderr.replace("checkpoint last", f"checkpoint {name}"))

    def test_embeddings_come_from_the_weights_alone(self):
        self.train()
        file = self.here / "weights.safetensors"
        shutil.copy(self.model_file(), file)
        shutil.rmtree(self.here / "run")
        run("embed", file, "--data", self.here / "text.txt", "--out", self.here / "lines.npy")

    def test_a_run_does_not_go_on_from_weights_alone(self):
        self.train()
        alone = self.here / "alone"
        alone.mkdir()
        shutil.copy(self.model_file(), alone)
        config = self.here / "config.toml"
        for path in (alone, alone / "model.safetensors"):
            for command in (("resume", path), ("train", config, "--out", path, "--resume")):
                self.assert_one_line(run(*command, status=1), path, "weights alone",
                                     f"model.weights={alone}/model.safetensors")
        self.assert_one_line(run("resume", self.model_file().parent, status=1),
                             "is a checkpoint, expected the folder of its run")
        (self.here / "run/checkpoints/last/state.safetensors").unlink()
        self.assert_one_line(run("resume", self.here / "run", status=1), "run/checkpoints/step-12",
                             "without state.safetensors")

    def test_weights_that_are_no_run(self):
        self.train()
        text = ("--data", self.here / "text.txt")
        self.assert_one_line(run("eval", self.model_file(), *text, "--checkpoint", "best", status=1),
                             "--checkpoint is best", "is a file, expected a run")
        bare = self.here / "bare.safetensors"
        safetensors_file.write(bare, safetensors_file.read(self.model_file())[1])
        self.assert_one_line(run("eval", bare, *text, status=1), bare, "carousel.config")
        self.assert_one_line(run("eval", self.here / "config.toml", *text, status=1),
                             self.here / "config.toml", "no safetensors file")


if __name__ == "__main__":
    main()
