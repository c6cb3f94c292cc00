#!/usr/bin/env python3
"""The driver's inspect, and vectors as files: against the same numbers computed here.

    driver_inspect_test.py CAROUSEL DEVICE [TEST...]
"""

import json
import math
import pathlib
import struct
import sys
import xml.etree.ElementTree
from array import array

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import safetensors_file
from driver import SMALL_CONFIG, TEXT, DriverCase, main, run

WORDS = SMALL_CONFIG.replace('"char"', '"word"')
ROYALS = "6 3\nman 1 2 0\nwoman 1 -2 0\nking 6 4 0\nqueen 6 -4 0\nzero 0 0 0\nsea 0 0 7\n"
PAIRS = "Word 1,Word 2,Human (Mean)\nman,king,9\nman,woman,1\nman,boat,4\nman,sea,5\n"
QUESTIONS = (": family\nman woman king queen\nwoman man queen king\nman woman king boat\n"
             ": wrong\nman woman king sea\n: nothing\nship boat a b\n")


def embeddings(model):
    """Token and row of each, in order."""
    metadata, tensors = safetensors_file.read(model)
    _, (rows, width), block = tensors["embedding.weight"]
    numbers = array("f", block)
    tokens = [line.split("\t")[0] for line in metadata["carousel.vocabulary"].split("\n")[1:-1]]
    assert len(tokens) == rows
    return {token: list(numbers[i * width:(i + 1) * width]) for i, token in enumerate(tokens)}


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def write_vectors(path, vectors, binary):
    """As word2vec does, which ends each line of text with a blank."""
    width = len(next(iter(vectors.values())))
    content = f"{len(vectors)} {width}\n".encode()
    for word, numbers in vectors.items():
        content += word.encode() + b" "
        content += (struct.pack(f"<{width}f", *numbers) if binary else
                    "".join(f"{x:.9g} " for x in numbers).encode()) + b"\n"
    path.write_bytes(content)


class DriverInspectTest(DriverCase):
    FILES = {"config.toml": WORDS, "text.txt": TEXT, "royals.vec": ROYALS, "pairs.csv": PAIRS,
             "questions.txt": QUESTIONS}

    def inspect(self, what, name, *more, **options):
        return run("inspect", what, self.here / name, *more, **options)

    def json(self, what, name, *more):
        return json.loads(self.inspect(what, name, *more, "--json").stdout)

    def model_file(self, out="run"):
        return self.here / out / "checkpoints/best/model.safetensors"

    def test_neighbours_of_a_run_are_those_of_its_embeddings(self):
        self.train()
        table = embeddings(self.model_file())
        want = sorted(((cosine(table["ships"], row), word) for word, row in table.items()
                       if word != "ships"), reverse=True)[:5]
        result = self.inspect("neighbours", "run", "ships", "--top", 5)
        got = [line.split("\t") for line in result.stdout.splitlines()]
        self.assertEqual([word for word, _ in got], [word for _, word in want])
        for (_, text), (value, _) in zip(got, want):
            self.assertAlmostEqual(float(text), value, delta=6e-5)
        self.assertRegex(result.stderr, rf"^inspect: {len(table)} words of .*model.safetensors, 8 numbers")
        found = self.json("neighbours", "run", "ships", "--top", 5)
        self.assertEqual((found["what"], found["words"]), ("neighbours", ["ships"]))
        for one, (value, word) in zip(found["neighbours"], want, strict=True):
            self.assertEqual(one["word"], word)
            self.assertAlmostEqual(one["cosine"], value, delta=1e-6)
        self.assertEqual(len(self.inspect("neighbours", "run", "ships").stdout.splitlines()), 10)

    def test_an_analogy_leaves_out_what_it_names(self):
        result = self.inspect("analogy", "royals.vec", "man", "woman", "king", "--top", 2)
        self.assertEqual([line.split("\t")[0] for line in result.stdout.splitlines()], ["queen", "zero"])

    def test_similarity_counts_unknown_words(self):
        self.assertEqual(self.inspect("similarity", "royals.vec", self.here / "pairs.csv").stdout,
                         "Spearman 1.0000 over 3 pairs; 1 with an unknown word\n")
        found = self.json("similarity", "royals.vec", self.here / "pairs.csv")
        self.assertAlmostEqual(found["spearman"], 1)
        self.assertEqual((found["pairs"], found["judged"], found["unknown_pairs"]), (4, 3, 1))
        self.assertEqual(found["file"], f"{self.here}/royals.vec")
        (self.here / "upper.tsv").write_text("MAN\tKing\t9\nMan\twoman\t1\n")
        self.assertIn("Spearman - over 0 pairs; 2 with",
                      self.inspect("similarity", "royals.vec", self.here / "upper.tsv").stdout)
        self.assertIsNone(self.json("similarity", "royals.vec", self.here / "upper.tsv")["spearman"])
        self.assertIn("Spearman 1.0000 over 2 pairs; 0 with",
                      self.inspect("similarity", "royals.vec", self.here / "upper.tsv",
                                   "--ignore-case").stdout)

    def test_analogies_are_counted_by_section(self):
        self.assertEqual(self.inspect("analogies", "royals.vec", self.here / "questions.txt").stdout,
                         "family   100.0 %  2 right of 2; 1 with an unknown word\n"
                         "wrong      0.0 %  0 right of 1; 0 with an unknown word\n"
                         "nothing        -  0 right of 0; 1 with an unknown word\n"
                         "all       66.7 %  2 right of 3; 2 with an unknown word\n")
        found = self.json("analogies", "royals.vec", self.here / "questions.txt",
                          "--most-frequent", 4)
        self.assertEqual([found[key] for key in ("questions", "unknown", "correct", "accuracy")],
                         [5, 3, 2, 1.0])
        self.assertEqual([s["section"] for s in found["sections"]], ["family", "wrong", "nothing"])
        self.assertEqual([s["unknown"] for s in found["sections"]], [1, 1, 1])

    def test_a_map_is_an_image_of_the_words(self):
        words = ("man", "woman", "king", "queen")
        image = self.inspect("map", "royals.vec", *words).stdout
        space = "{http://www.w3.org/2000/svg}"
        root = xml.etree.ElementTree.fromstring(image)
        self.assertEqual([text.text for text in root.iter(f"{space}text")], list(words))
        places = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{space}circle")]
        # Deviations (±2.5, ±2 and ±4): the variance upwards, 40, is more than across, 25.
        found = self.json("map", "royals.vec", *words)
        self.assertEqual([point["word"] for point in found["points"]], list(words))
        self.assertAlmostEqual(sum(found["share"]), 1)
        self.assertAlmostEqual(found["share"][0], 40 / 65)
        scale = (places[2][0] - places[3][0]) / (found["points"][2]["x"] - found["points"][3]["x"])
        for (x, y), point in zip(places, found["points"]):
            self.assertAlmostEqual(x, 400 + scale * point["x"], delta=0.2)
            self.assertAlmostEqual(y, 300 - scale * point["y"], delta=0.2)
        told = self.inspect("map", "royals.vec", *words, "--out", self.here / "map.svg").stdout
        self.assertEqual(told, f"{self.here}/map.svg: 4 words, 100.0 % of their variance\n")
        self.assertEqual((self.here / "map.svg").read_text(), image)

    def test_token_embeddings_are_written_and_read_in_each_form(self):
        self.train()
        table = embeddings(self.model_file())
        asked = ("neighbours", "ships")
        want = self.json(asked[0], "run", asked[1])["neighbours"]
        for name in ("words.vec", "words.txt", "words.bin", "words.safetensors"):
            with self.subTest(name):
                told = run("embed", self.here / "run", "--what", "tokens", "--out", self.here / name)
                self.assertEqual(told.stdout, f"{self.here / name}: [{len(table)}, 8]\n")
                self.assertEqual(self.json(asked[0], name, asked[1])["neighbours"], want)
        lines = (self.here / "words.vec").read_text().splitlines()
        self.assertEqual(lines[0], f"{len(table)} 8")
        for line, (word, row) in zip(lines[1:], table.items(), strict=True):
            fields = line.split(" ")
            self.assertEqual(fields[0], word)
            self.assertEqual(list(array("f", map(float, fields[1:]))), row)
        # What word2vec would write of these.
        write_vectors(self.here / "theirs.bin", table, binary=True)
        self.assertEqual((self.here / "theirs.bin").read_bytes(), (self.here / "words.bin").read_bytes())

    def test_a_model_begins_with_the_vectors_of_a_file_by_word(self):
        self.train()
        table = embeddings(self.model_file())
        given = {"isle": [0.5] * 8, "nowhere": [7.0] * 8, "ships": [-0.25, 1e-3] * 4}
        for binary, name in ((False, "given.vec"), (True, "given.bin")):
            write_vectors(self.here / name, given, binary)
            result = self.train("--set", f"model.embedding_from={self.here / name}",
                                "--set", "optimizer.groups=embedding.weight: frozen", out=name + ".run")
            self.assertIn(f"2 of {len(table)} embeddings are those of {self.here / name}", result.stderr)
            own = embeddings(self.model_file(name + ".run"))
            for word in ("isle", "ships"):
                self.assertEqual(own[word], list(array("f", given[word])))
            self.assertNotIn("nowhere", own)
        result = self.train("--set", f"model.embedding_from={self.here / 'given.vec'}", out="learnt")
        self.assertNotEqual(embeddings(self.model_file("learnt"))["isle"], given["isle"])
        write_vectors(self.here / "narrow.vec", {"isle": [1.0] * 4}, False)
        refused = self.train("--set", f"model.embedding_from={self.here / 'narrow.vec'}", out="none",
                             status=1)
        self.assert_one_line(refused, "narrow.vec", "4 numbers", f"[{len(table)}, 8]")
        (self.here / "bad.vec").write_text("2 8\nisle 1 2 3 4 5 6 7 8\nships 1 2 3 4 5 6 7\n")
        refused = self.train("--set", f"model.embedding_from={self.here / 'bad.vec'}", out="none2",
                             status=1)
        self.assert_one_line(refused, "bad.vec: line 3: 7 numbers", "expected 8")

    def test_an_ngram_model_of_another_text_takes_the_words_that_both_have(self):
        self.train()
        (self.here / "other.txt").write_text("a little boat sails to the isle of ships and\n" * 40)
        config = WORDS.replace("recurrent_lm", "ngram_lm").replace("text.txt", "other.txt")
        (self.here / "config.toml").write_text(config)
        result = self.train("--set", f"model.embedding_from={self.here / 'run'}",
                            "--set", "optimizer.groups=embedding.weight: frozen", out="ngram")
        theirs, own = embeddings(self.model_file()), embeddings(self.model_file("ngram"))
        common = theirs.keys() & own.keys()
        self.assertTrue({"little", "the", "isle", "of", "ships"} <= common)
        self.assertIn(f"{len(common)} of {len(own)} embeddings are those of", result.stderr)
        self.assertNotEqual(list(theirs), list(own)[:len(theirs)])
        for word in own:
            self.assertEqual(theirs.get(word) == own[word], word in common, word)

    def test_a_text_is_written_as_people_write(self):
        (self.here / "text.txt").write_text("the ship ( an old one ) sails , it 's home .\n" * 60)
        self.train("--set", "train.steps=150", "--set", "optimizer.learning_rate=3e-2",
                   "--set", "train.evaluate_every=150")
        asked = ("generate", self.here / "run", "--prompt", "the ship", "--greedy", "--tokens", 14)
        plain, tidy = (run(*asked, *more).stdout for more in ((), ("--tidy",)))
        self.assertEqual(plain, "the ship ( an old one ) sails , it 's home .\nthe ship\n")
        self.assertEqual(tidy, "the ship (an old one) sails, it's home.\nThe ship\n")
        both = json.loads(run(*asked, "--tidy", "--json").stdout)
        self.assertEqual(both["text"] + "\n", tidy)
        (self.here / "config.toml").write_text(SMALL_CONFIG)
        self.train(out="characters")
        self.assert_one_line(run("generate", self.here / "characters", "--tidy", status=1),
                             "--tidy is for models of words")

    def test_mistakes(self):
        self.train()
        def refused(*arguments, parts, status=1):
            with self.subTest(arguments):
                self.assert_one_line(run("inspect", *arguments, status=status), *parts)
        royals = self.here / "royals.vec"
        refused("neighbours", royals, "kng", parts=("'kng' is none of the 6 words", "mean 'king'?"))
        refused("neighbours", royals, "zero", parts=("the vector of 'zero' is zero",))
        refused("neighbours", royals, "king", "--top", 0, parts=("--top is 0, expected 1 to 1024",))
        refused("neighbours", royals, "king", "--checkpoint", "last", parts=("--checkpoint", "a file"))
        refused("neighbours", self.here / "none", "king", parts=("none",))
        refused("neighbours", self.here / "run", "king", "--checkpoint", "step-77", parts=("step-77",))
        refused("neighbours", self.here / "pairs.csv", "king", parts=("pairs.csv", "safetensors"))
        refused("analogies", royals, self.here / "pairs.csv", parts=("pairs.csv: line 1",))
        refused("analogies", royals, self.here / "questions.txt", "--most-frequent", -1,
                parts=("--most-frequent is -1",))
        refused("similarity", royals, self.here / "questions.txt", parts=("questions.txt: line 1",))
        refused("similarity", royals, self.here / "none.csv", parts=("none.csv", "No such file"))
        refused("map", royals, "king", parts=("map: 1 word, expected 2 to 500",))
        refused("map", royals, "king", "queen", "--out", royals, parts=("exists already",))
        refused("neighbors", royals, "king", status=2,
                parts=("carousel inspect has no command 'neighbors', did you mean 'neighbours'?",))
        refused("neighbours", royals, "king", "--tpo", 3, status=2,
                parts=("carousel inspect neighbours has no option '--tpo', did you mean '--top'?",))
        refused("neighbours", royals, status=2, parts=("word is required",))
        (self.here / "cut.bin").write_bytes(b"2 2\na " + struct.pack("<2f", 1, 2) + b"b 1234567")
        refused("neighbours", self.here / "cut.bin", "a", parts=("cut.bin: byte 14: the file ends within word 2",))
        # A model of characters has white space among its tokens, which a file of words cannot hold.
        (self.here / "config.toml").write_text(SMALL_CONFIG)
        self.train(out="characters")
        result = run("embed", self.here / "characters", "--what", "tokens", "--out",
                     self.here / "characters.vec", status=1)
        self.assert_one_line(result, "characters.vec: token", "white space", ".safetensors")
        self.assertFalse((self.here / "characters.vec").exists())
        self.assertIn("\\s\t", self.inspect("neighbours", "characters", "e", "--top", 26).stdout)


if __name__ == "__main__":
    main()
