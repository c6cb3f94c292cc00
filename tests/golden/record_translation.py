#!/usr/bin/env python3
"""Records what sacreBLEU says of translations, as tests/golden/translation_scores.json.

    tests/golden/record_translation.py

A recording holds hypotheses, references and scores, so that no test needs sacreBLEU. Any Python
that has it runs this: python3 -m venv build/sacrebleu && build/sacrebleu/bin/pip install sacrebleu
"""

import json
import pathlib
import random

import sacrebleu

HERE = pathlib.Path(__file__).resolve().parent
SEED = 1

FRENCH = [
    "L'été dernier, nous avons loué une maison près de la mer.",
    "«\u00a0Où est-ce que tu l'as mis\u00a0?\u00a0», demanda-t-elle à son frère.",
    "Le prix est passé de 1,50 € à 2,25 € en dix ans, soit 50\u202f% de plus.",
    "Qu'est-ce qu'il y a dans l'armoire\u202f? Rien, m'a-t-on dit...",
    "Aujourd'hui, j'ai mangé trois pommes ; demain, j'en mangerai deux.",
    "N'oublie pas d'éteindre la lumière avant de partir !",
    "Le train de 8 h 15 a 1.000 places, dont 3-4 sont libres.",
    "Ils habitent à côté de l'église depuis 1999-2000.",
]
ENGLISH = [
    "The committee (which met on 3-4 May) approved $1,250.50 for the project.",
    "\"Don't worry,\" she said; \"it's only 5.5 km away.\"",
    "He reads e-mails @ 10/12 p.m., doesn't he?",
    "Use a[0] = b & c; or x < y > z, if {p|q} ~ r.",
    "I've never seen a well-known, state-of-the-art system fail so badly.",
    "Mr. Smith's U.S.-based firm grew by 3.5%, from 2,000 to 2,070 people.",
    "Stop!",
    "A B A B A B A B.",
]
OTHER = [
    "Ελληνικά και русский, 中文和日本語。",
    "Ça va\u3000? naïve café — œuvre …",
    "🙂🙃 emoji \U0001F468\u200d\U0001F469\u200d\U0001F467 family",
    "e\u0301 is é in two code points",
    "tabs\tand\u2028separators\x1cof\x85every kind",
]


def damaged(sentence, draw):
    """The sentence with words left out, repeated, changed or moved."""
    words = sentence.split(" ")
    for _ in range(draw.randint(0, 3)):
        at = draw.randrange(len(words))
        what = draw.randrange(4)
        if what == 0 and len(words) > 1:
            del words[at]
        elif what == 1:
            words.insert(at, words[at])
        elif what == 2:
            words[at] = words[at].swapcase()
        else:
            words.insert(draw.randrange(len(words)), words.pop(at))
    return " ".join(words)


def cases(draw):
    def spoilt(sentences):
        return [damaged(s, draw) for s in sentences], list(sentences)

    yield "French", *spoilt(FRENCH)
    yield "English", *spoilt(ENGLISH)
    yield "other scripts and white space", *spoilt(OTHER)
    yield "a larger corpus", *spoilt((FRENCH + ENGLISH + OTHER) * 6)
    yield "the references themselves", FRENCH + ENGLISH + OTHER, FRENCH + ENGLISH + OTHER
    yield "other references", FRENCH, FRENCH[1:] + FRENCH[:1]
    yield "empty hypotheses among others", ["", FRENCH[0], "  "], FRENCH[:3]
    yield "an empty reference among others", [FRENCH[1], FRENCH[0]], ["", FRENCH[0]]
    yield "nothing but empty hypotheses", ["", ""], FRENCH[:2]
    yield "both empty", [""], [""]
    yield "one word", ["Stop"], ["Stop"]
    yield "three words", ["the cat sat"], ["the cat sat"]
    yield "four words", ["the cat sat down"], ["the cat sat down"]
    yield "no match of two words", ["b a d c"], ["a b c d"]
    yield "no match of three words", ["a b x c d"], ["a b c d e"]
    yield "nothing in common", ["abc def ghi jkl"], ["mno pqr stu vwx"]
    yield "a single character", ["x"], ["x y z"]
    yield "a reference of fewer characters than an order", ["abcdefg hi"], ["abc"]
    yield "longer than the reference", ["the the the the the the"], ["the cat is on the mat"]
    yield "much shorter than the reference", ["the cat is on"], [
        "the cat is on the mat and the dog is under the table"]
    yield "case counts", ["THE CAT SAT ON THE MAT"], ["the cat sat on the mat"]
    yield "numbers", ["1,000.5 and 2.000,5 and 3-4 or 5 -6, 7. 8 , 9"], [
        "1,000.5 and 2,000.5 and 3 - 4 or 5-6, 7.8,9"]
    yield "points in a row", ["well... no,, yes.,. 1..2 a.b.c ,5 .5"], [
        "well ... no, , yes . , . 1..2 a.b.c , 5 .5"]
    yield "entities and newlines", ["&quot;a&quot; &amp;lt; &lt;b&gt; <skipped>c well-\nknown x\ny"], [
        "\" a \" < < b > c wellknown x y"]
    yield "a hyphen at the end", ["one two three four-\n"], ["one two three four-"]
    for i in range(12):
        sentences = draw.sample(FRENCH + ENGLISH + OTHER, draw.randint(1, 6))
        yield f"drawn {i}", *spoilt(sentences)


def recorded(name, hypotheses, references):
    bleu = sacrebleu.corpus_bleu(hypotheses, [references], force=True)
    chrf = sacrebleu.corpus_chrf(hypotheses, [references])
    tokenize = sacrebleu.BLEU().tokenizer
    return {
        "name": name,
        "hypotheses": hypotheses,
        "references": references,
        "words": [tokenize(h.rstrip()) for h in hypotheses],
        "bleu": bleu.score,
        "precisions": bleu.precisions,
        "brevity_penalty": bleu.bp,
        "hypothesis_words": bleu.sys_len,
        "reference_words": bleu.ref_len,
        "chrf": chrf.score,
    }


def main():
    draw = random.Random(SEED)
    lines = ",\n".join(json.dumps(recorded(*case)) for case in cases(draw))
    (HERE / "translation_scores.json").write_text(
        f'{{"recorded by": "tests/golden/record_translation.py; sacreBLEU '
        f'{sacrebleu.__version__}, its defaults, seed {SEED}",\n"options": {{"cases": [\n{lines}\n]}}}}\n')


if __name__ == "__main__":
    main()
