"""Texts of many lengths and scripts, the same on every machine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from fmrt.export.quantize.phrases import OTHER_LANGUAGES, TALK

# Each a list of the first and last characters of its ranges.
SCRIPTS = {
    "Latin": ("az", "az", "AZ", "àÿ"),
    "Greek": ("αω",),
    "Cyrillic": ("ая", "АЯ"),
    "Hebrew": ("את",),
    "Arabic": ("بغ", "في"),
    "Devanagari": ("अह", "ा्"),
    "Thai": ("กฮ", "ะู"),
    "Hangul": ("가힣",),
    "kana": ("あん", "アン"),
    "Chinese": ("一鿋",),
    "digits": ("09",),
    "signs": ("!~", "€₿"),
    "emoji": ("😀🙏", "🌀🏺"),
}
# Most texts are short, as queries are, and some are as long as a model takes.
SHORT, LONG = 120, 1200
LONG_SHARE = 0.03
LONGEST_WORD = 9


def token_ids(bundle: Path, count: int, longest: int = 256) -> list[list[int]]:
    """Token ids of so many texts, no two alike, cut to a length."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    found = tokenizer.encode_batch(texts(2 * count))  # two texts may have the same tokens
    return [list(ids) for ids in dict.fromkeys(tuple(e.ids) for e in found)][:count]


def texts(count: int) -> list[str]:
    """So many texts, no two alike, of one to `LONG` characters."""
    chosen = random.Random(7)
    found: dict[str, None] = {}
    while len(found) < count:
        found[_text(chosen)] = None
    return list(found)


def _text(chosen: random.Random) -> str:
    """Phrases, words of one script, or words of all."""
    most = LONG if chosen.random() < LONG_SHARE else SHORT
    length = round(math.exp(chosen.uniform(0, math.log(most))))
    kind = chosen.choice(["phrases", "phrases", "mixed", *SCRIPTS])
    scripts = list(SCRIPTS) if kind == "mixed" else [kind]
    pieces = _phrases(chosen) if kind == "phrases" else _words(chosen, scripts)
    text = next(pieces)
    while len(text) < length:
        text += " " + next(pieces)
    return text[:length].strip() or "x"


def _phrases(chosen: random.Random) -> Iterator[str]:
    """Phrases whole, each from any of its words on."""
    while True:
        words = chosen.choice((*TALK, *OTHER_LANGUAGES)).split()
        yield " ".join(words[chosen.randrange(len(words)) :])


def _words(chosen: random.Random, scripts: list[str]) -> Iterator[str]:
    while True:
        first, last = chosen.choice(SCRIPTS[chosen.choice(scripts)])
        letters = (
            chr(chosen.randint(ord(first), ord(last)))
            for _ in range(chosen.randint(1, LONGEST_WORD))
        )
        yield "".join(letters)
