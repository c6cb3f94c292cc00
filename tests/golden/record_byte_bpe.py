#!/usr/bin/env python3
"""Records how Hugging Face's tokenizers cuts texts by byte-level BPE as GPT-2 does, and the expression of
GPT-2 alone, as tests/golden/byte_bpe.json.

    tests/golden/record_byte_bpe.py

A recording holds a small vocabulary that is learnt here, its merges, texts, their words and ids, so
that no test needs tokenizers. Any Python that has it and regex runs this; tests/golden/setup makes one.
"""

import json
import pathlib
import random

import regex
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
SEED = 1
END = "<|endoftext|>"
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

LEARNT = [
    "The quick brown fox didn't see the lazy dog's tail; they've all said they'll come at 10:30.",
    "In the beginning the cat and the hat sat on the mat, and that was that. The end\n\n",
    "L'été dernier, les élèves étaient à la mer: « quelle chaleur ! » 1234 5678",
    "Привет, мир! Как дела у тебя сегодня? 日本語のテキスト、中文文本。 emoji 🙂🙂🙃",
    "    def f(x):\n        return x * x  # the square of x\n\n\n    print(f(12), f(345))\n",
]
TEXTS = [
    "", " ", "  ", "\n", " \n", "\n ", "a", " a", "a ", "  a", "a  b", "a\nb", "a\n\nb", "a \n b", "\t\tx",
    "don't we'll they've I'm he'd she's you're", "'s", "'", "''s", " 's", "x's's", "'re'", "'r e", "'lx",
    "'vX", "'S 'T", "'ll'll", "'l", "'v", "rock'n'roll '90s", "f'(x)=2'", "a'\nb",
    "12 a12b 1½ ²³ Ⅷ ٣٤ 1,000.5", "naïve café — œuvre …", "e\u0301 a\u0308\u0301b", "Straße ǅ ʰ ª º",
    "\u00a0a\u00a0\u00a0b\u3000c \u2028d\u0085e\u200bf", "\x1c\x1d a\x00b\x7f", "\r\n\r\nwindows\r\n",
    "日本語 中文1２三", "🙂 👨\u200d👩\u200d👧 🇫🇷", "\ufeffmark", "\U000e0100\U0001d11e\U0010ffff", "a_b-c/d\\e",
    f"one{END}two", f"a {END} b", f"'{END}'", f"'r{END}{END}\n", f"<|{END[2:5]}", f"<{END}", f"{END[:-1]}x{END}",
    "<|endoftex t|>", f"end '{END[:4]}", *LEARNT,
]
POOL = list("aéZя日 19²'srevld   \n\t\u00a0.,!?-<|>_🙂\u0301") + ["'s", "'ll", "the", " the", END, "\r\n"]


def learnt():
    """A small vocabulary and its merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(LEARNT * 2, trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {END: len(model["vocab"])}
    return vocabulary, [tuple(merge) for merge in model["merges"]]


def words_of(text):
    parts = text.split(END)
    words = WORDS.findall(parts[0])
    for part in parts[1:]:
        words += [END, *WORDS.findall(part)]
    return words


def main():
    draw = random.Random(SEED)
    vocabulary, merges = learnt()
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    texts = TEXTS + ["".join(draw.choices(POOL, k=40)) for _ in range(40)]
    cases = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, text
        assert "".join(words_of(text)) == text
        cases.append({"text": text, "words": words_of(text), "ids": ids})
    lines = ['"vocabulary": ' + json.dumps(vocabulary),
             '"merges": ' + json.dumps([" ".join(merge) for merge in merges]),
             '"cases": [\n' + ",\n".join(map(json.dumps, cases)) + "]"]
    by = f"tests/golden/record_byte_bpe.py; tokenizers {tokenizers.__version__}, seed {SEED}"
    (HERE / "byte_bpe.json").write_text(
        f'{{"recorded by": "{by}",\n"options": {{\n' + ",\n".join(lines) + "}}\n")


if __name__ == "__main__":
    main()
