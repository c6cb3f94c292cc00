#!/usr/bin/env python3
"""The driver with subwords of SentencePiece: of a text, labelled texts and pairs.

    driver_subwords_test.py CAROUSEL cpu [TEST...]
"""

import base64
import json
import math
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import SMALL_CONFIG, DriverCase, main, run

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
SYLLABLES = "ma ri to le su ka no vé".split()
NAMES = ["".join(SYLLABLES[n * k % 8] for k in (1, 3, 2)[:2 + n % 2]) for n in range(60)]
TEXT = "".join(f"the {n % 9} little ships sail round the isle of {name}\n" for n, name in enumerate(NAMES))
SUBWORDS = 'tokens = "sentencepiece"\nsentencepiece_kind = "bpe"\nvocabulary_size = 50\n'
TRANSLATOR = f"""
[model]
kind = "transformer_seq2seq"
layers = 1
heads = 1
embed = 8
[data]
kind = "pairs"
text = "pairs.tsv"
{SUBWORDS}
[train]
steps = 2
batch = 4
"""
CLASSIFIER = f"""
[model]
kind = "classifier"
embed = 4
hidden = 6
layers = 1
[data]
kind = "labelled"
text = "pairs.tsv"
{SUBWORDS}
[train]
steps = 2
batch = 4
"""
PAIRS = "".join(f"{n % 9} little ships of {name}\t{name} has {n % 9} small boats in the isle of {name}\n"
                for n, name in enumerate(NAMES))


def model_of(folder):
    """The vocabulary's tokens and SentencePiece's model, out of a checkpoint."""
    metadata, _ = safetensors_file.read(folder / "checkpoints/last/model.safetensors")
    *lines, last = metadata["carousel.vocabulary"].splitlines()
    assert last.startswith("model\t")
    return [line.split("\t")[0] for line in lines[1:]], base64.b64decode(last.split("\t")[1])


class DriverSubwordsTest(DriverCase):
    FILES = {"config.toml": SMALL_CONFIG.replace('tokens = "char"\n', SUBWORDS), "text.txt": TEXT,
             "pairs.tsv": PAIRS, "translator.toml": TRANSLATOR,
             "classifier.toml": CLASSIFIER, "blank.txt": " \n\n \n"}

    def test_a_language_model_of_subwords(self):
        self.train()
        self.train("--set", "train.steps=3", out="short")
        self.train("--resume", out="short")
        one, two = ((self.here / out / "checkpoints/last/state.safetensors").read_bytes()
                    for out in ("run", "short"))
        self.assertEqual(one, two)
        tokens, model = model_of(self.here / "run")
        self.assertIn("▁the", tokens)
        for file in ("text.txt", "run/cache"):  # the checkpoint has all it needs
            (self.here / file).rename(self.here / (file.replace("/", "-") + ".away"))
        written = run("generate", self.here / "run", "--prompt", "the 7", "--tokens", 9).stdout
        self.assertTrue(written.startswith("the 7"))
        (self.here / "line.txt").write_text("the 8 little ships\n")
        told = json.loads(run("eval", self.here / "run", "--data", self.here / "line.txt",
                              "--json").stdout)
        score = json.loads(run("score", self.here / "run", "--data", self.here / "line.txt", "--json",
                               "--tokens").stdout)
        self.assertEqual((told["characters"], told["unknown_tokens"]), (19, 0))
        self.assertEqual("".join(entry["token"] for entry in score["scores"]),
                         "▁the▁8▁little▁ships\n")
        self.assertLess(told["tokens"], 18)
        self.assertEqual(told["tokens"], score["tokens"])
        nats = told["nats_per_token"] * told["tokens"]
        self.assertAlmostEqual(nats, -score["log_probability"], delta=1e-3)
        self.assertAlmostEqual(told["nats_per_character"], nats / 19)
        self.assertAlmostEqual(told["perplexity"], math.exp(told["nats_per_token"]))
        self.assertEqual(told["words"], 5)  # four words and the end of the line
        self.assertAlmostEqual(told["nats_per_word"], nats / 5)
        self.assertAlmostEqual(told["perplexity_per_word"], math.exp(nats / 5))
        (self.here / "line.txt").write_text("the 8\n\n little  ships")
        told = run("eval", self.here / "run", "--data", self.here / "line.txt").stdout
        self.assertIn("\n7 words and ends of lines: ", told)
        # The same model read from a file gives the same vocabulary; unread keys are told.
        (self.here / "text.txt.away").rename(self.here / "text.txt")
        (self.here / "own.model").write_bytes(model)
        given = ("--set", f"data.sentencepiece={self.here / 'own.model'}")
        result = self.train(*given, out="given").stderr
        self.assertIn("data.sentencepiece_kind = \"bpe\", data.vocabulary_size = 50 have no effect: no model of SentencePiece is learnt",
                      result)
        self.assertEqual(model_of(self.here / "given"), (tokens, model))
        other = self.train("--set", "data.sentencepiece_kind=unigram", "--set",
                           "data.vocabulary_size=40", "--set", "data.minimum_count=2", "--set",
                           "train.steps=1", out="other").stderr
        self.assertIn("data.minimum_count = 2 has no effect", other)
        self.assertNotEqual(model_of(self.here / "other")[0], tokens)

    def test_byte_level_bpe_is_read_from_gpt2s_files(self):
        recorded = json.loads((GOLDEN / "byte_bpe.json").read_text())["options"]
        folder = self.here / "bpe"
        folder.mkdir()
        (folder / "vocab.json").write_text(json.dumps(recorded["vocabulary"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(recorded["merges"]) + "\n")
        of_bytes = ("--set", "data.tokens=byte_bpe", "--set", f"data.byte_bpe={folder}")
        (self.here / "text.txt").write_bytes(TEXT.encode() + b"not UTF-8: \xff\xc3 \xe9\n")
        self.assertIn(f"vocabulary {len(recorded['vocabulary'])}, ", self.train(*of_bytes).stderr)
        (folder / "merges.txt").rename(folder / "away")  # the checkpoint has all it needs
        (self.here / "line.txt").write_bytes("The cat's élèves \xff\n".encode("latin-1"))
        told = json.loads(run("eval", self.here / "run", "--data", self.here / "line.txt",
                              "--json").stdout)
        score = json.loads(run("score", self.here / "run", "--data", self.here / "line.txt", "--json",
                               "--tokens").stdout)
        self.assertEqual((told["words"], told["perplexity_per_word"]), (None, None))  # not UTF-8
        self.assertEqual("".join(entry["token"] for entry in score["scores"]),
                         "The\\scat's\\s\\xE9l\\xE8ves\\s\\xFF\\n")
        self.assertAlmostEqual(told["nats_per_token"] * told["tokens"], -score["log_probability"],
                               delta=1e-3)
        written = run("generate", self.here / "run", "--prompt", "The cat's", "--tokens", 9).stdout
        self.assertTrue(written.startswith("The cat's"))
        self.assert_one_line(self.train(*of_bytes, out="bad", status=1), "merges.txt")
        self.assert_one_line(self.train("--set", "data.tokens=byte_bpe", out="bad", status=1),
                             "data.byte_bpe is not set, expected a folder")

    def test_translators_and_classifiers_have_them(self):
        for name, shared in (("own", "false"), ("shared", "true")):
            out = self.here / name
            run("train", self.here / "translator.toml", "--out", out, "--set",
                f"data.shared_vocabulary={shared}")
            metadata, _ = safetensors_file.read(out / "checkpoints/last/model.safetensors")
            same = metadata["carousel.vocabulary"] == metadata["carousel.vocabulary.source"]
            self.assertEqual(same, shared == "true")
            answer = json.loads(run("predict", out, "--json", input="little ship\n").stdout)
            self.assertEqual("".join(answer["source_tokens"]).replace("▁", " "), " little ship<eos>")
            self.assertNotIn("▁", answer["hypotheses"][0]["text"])
            told = run("eval", out, "--data", self.here / "pairs.tsv").stdout
            self.assertIn("translated with a beam of 4: BLEU ", told)
        run("train", self.here / "classifier.toml", "--out", self.here / "labels")
        labels = run("predict", self.here / "labels", input="3 little ships\nsail\n").stdout
        self.assertEqual(len(labels.splitlines()), 2)

    def test_mistakes_are_one_line(self):
        (self.here / "damaged.model").write_bytes(b"damaged")
        for key, value, part in (
                ("vocabulary_size", 9999, "Please set it to a value <= "),
                ("vocabulary_size", 4, "data.vocabulary_size is 4, and SentencePiece refuses: "
                                       "Vocabulary size is smaller than required_chars. 4 vs "),
                ("vocabulary_size", 3, "is 3, expected an integer of 4"),
                ("sentencepiece", "none.model", "data.sentencepiece: opening"),
                ("sentencepiece", self.here / "damaged.model",
                 "damaged.model: not a model of SentencePiece"),
                ("text", self.here / "blank.txt", "the text has no tokens")):
            result = self.train("--set", f"data.{key}={value}", status=1, out="bad")
            self.assert_one_line(result, part)
        result = self.train("--set", "train.tokens_per_batch=9", status=1, out="bad")
        self.assert_one_line(result, 'tokens_per_batch is 9, which is for data.kind = "pairs"')
        result = self.train("--set", "model.output=adaptive", "--set", "model.cutoffs=9", status=1)
        self.assert_one_line(result, "neither bytes nor SentencePiece's pieces")


if __name__ == "__main__":
    main()
