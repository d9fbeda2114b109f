"""Long runs of like characters, of which a tokenizer needs the ends alone.

- To WordPiece, a word of more characters than it takes is one unknown token, and so is each word to
  WordLevel that is longer than its vocabulary's.
- To BPE and Unigram, characters of no token are one unknown token, if they say so.
- Of spaces, many tokenizers keep one or none.

Such a run may be shortened, with the same tokens, where this is known of the tokenizer:

- Its normalizers change each character by itself and its near neighbours.
- Its pre-tokenizer looks at pairs of neighbours alone, and splits no pair of the run's characters.
- No added token begins with one of them and has no others, so that none begins in the part that is
  left out and ends in it.

What a tokenizer does to a character is asked of it once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from fmrt.preprocess.components import PAIRWISE, RUNS, Components, is_local, parts, pieces_of

# Characters that are read at a time, and those of a run that are looked for at a time.
BLOCK, STRIDE = 65536, 64
# Where letters, digits, symbols and line ends are looked for, and how many are tried at a time.
SCRIPTS = ((0x09, 0x2FFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF))
TRIED, ASIAN = 32, 0x3000
# What a character may be one word with, and the categories of characters of which that is asked.
OTHERS = (("x", "LNPSC"), ("+", "PS"), ("0", "N"))
WORDLY = frozenset(
    {
        *("Ll", "Lm", "Lo", "Lt", "Lu", "Nd", "Nl", "No"),
        *("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So"),
    }
)
JAMO = range(0x1100, 0x1200)
LINES = "\t\n\r"
SPACES = " " + LINES


@dataclass(frozen=True)
class Run:
    """Characters that a run may have.

    Attributes:
        characters: All of the characters.
    """

    characters: str

    @cached_property
    def pattern(self) -> str:
        """Matches one of the characters."""
        points = sorted(map(ord, self.characters))
        firsts = [p for p in points if p - 1 not in self._points]
        lasts = [p for p in points if p + 1 not in self._points]
        spans = zip(firsts, lasts, strict=True)
        return "[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in spans) + "]"

    @cached_property
    def _points(self) -> frozenset[int]:
        return frozenset(map(ord, self.characters))

    @cached_property
    def _many(self) -> re.Pattern[str]:
        return re.compile(self.pattern + "*")

    @cached_property
    def _ascii(self) -> bytes:
        return self.characters.encode("ascii", "ignore")

    def end(self, text: str, place: int) -> int:
        """Where the run ends that goes on at a place."""
        while block := text[place : place + BLOCK]:
            if not block.isascii() or block.encode().translate(None, self._ascii):
                found = self._many.match(block)
                length = found.end() if found else 0
                if length < len(block):
                    return place + length
            place += len(block)
        return place


class Shortener:
    """Shortens the long runs of texts for a tokenizer.

    Args:
        components: What the tokenizer is made of.
    """

    def __init__(self, components: Components) -> None:
        self._asked = components
        self._tokenizer = components.tokenizer

    def pieces(self, text: str) -> Iterator[str]:
        """A text of the same tokens, whose long runs are shorter, piece by piece."""
        place = at = 0
        while self._runs and at < len(text):
            run = self._run_at(text, at)
            end = at + STRIDE if run is None else run.end(text, at + STRIDE)
            if run is not None and end - at > self._keep + self._asked.edge:
                yield text[place : at + self._keep]
                place = end = end - self._asked.edge
            elif end - place > BLOCK:
                yield text[place:end]
                place = end
            at = end
        yield text[place:]

    def _run_at(self, text: str, at: int) -> Run | None:
        """The run that the next characters are all of."""
        found = self._pattern.match(text, at)
        return self._runs[(found.lastindex or 1) - 1] if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(f"({run.pattern}{{{STRIDE}}})" for run in self._runs))

    @cached_property
    def _runs(self) -> list[Run]:
        if not self._looks_at_pairs:
            return []
        words = self._words() if self._is_joined else ()
        free = ("".join(self._free(own)) for own in words)
        return [*map(Run, self._spaces()), *map(Run, filter(None, free))]

    def _free(self, own: Iterable[str]) -> list[str]:
        """Characters without those that begin an added token of no others."""
        given = list(own)
        first = {t[0] for t in self._asked.added if t and set(t) <= set(given)}
        return [c for c in given if first.isdisjoint(c + self._normalized(c))]

    @cached_property
    def _keep(self) -> int:
        """Characters of a run that stay at its start; with those at its end, more than a word."""
        return max(self._asked.edge, (self._unknown or 0) + 1 - self._asked.edge)

    @cached_property
    def _unknown(self) -> int | None:
        """Longer words are an unknown token; None where long words may be others."""
        if self._asked.stated["type"] == "WordPiece":
            return int(self._asked.stated["max_input_chars_per_word"])
        if self._asked.stated["type"] == "WordLevel":
            return max(map(len, self._tokenizer.get_vocab(with_added_tokens=False)), default=0)
        return None

    @property
    def _is_joined(self) -> bool:
        """Whether a long run of some characters is one unknown token."""
        model = self._asked.stated
        if model.get("byte_fallback") or model.get("dropout"):
            return False
        fuses = model["type"] == "Unigram" or bool(model.get("fuse_unk") and model.get("unk_token"))
        return fuses or self._unknown is not None

    @cached_property
    def _in_tokens(self) -> frozenset[str]:
        """Characters that may be a part of a token."""
        if self._unknown is not None:
            return frozenset()
        return frozenset("".join(self._tokenizer.get_vocab(with_added_tokens=False)))

    @cached_property
    def _looks_at_pairs(self) -> bool:
        """Whether what is done to a character depends on its near neighbours alone."""
        normalizers = parts(self._tokenizer.normalizer, "normalizers")
        splits = parts(self._tokenizer.pre_tokenizer, "pretokenizers")
        return all(map(_keeps_words, normalizers)) and all(s["type"] in PAIRWISE for s in splits)

    def _words(self) -> Iterator[list[str]]:
        """Kinds of characters: of one, no two are split, none is dropped, and none is known."""
        left = list(self._unknown_to_model())
        for other, categories in OTHERS:
            asked = ([c for c in some if unicodedata.category(c)[0] in categories] for some in left)
            own = set(chain.from_iterable(self._joined(some, other) for some in asked))
            left = [[c for c in some if c not in own] for some in left]
            yield sorted(own)

    def _unknown_to_model(self) -> Iterator[list[str]]:
        """Letters, digits, symbols and line ends without those of the vocabulary."""
        for first, last in SCRIPTS:
            points = [p for p in range(first, last + 1) if p not in JAMO]
            own = [c for c in map(chr, points) if unicodedata.category(c) in WORDLY or c in LINES]
            yield [c for c in own if self._in_tokens.isdisjoint(self._normalized(c))]

    def _joined(self, own: list[str], other: str) -> Iterator[str]:
        """Those that are no words of their own next to another character."""
        for some in (own[i : i + TRIED] for i in range(0, len(own), TRIED)):
            if self._are_one(some, other):
                yield from some
            elif ord(some[0]) < ASIAN:  # there, every character of a script is as the others
                yield from (c for c in some if self._are_one([c], other))

    def _are_one(self, characters: list[str], other: str) -> bool:
        """Whether none is dropped, and all are one word with the other character."""
        word = other.join(["", *characters, ""])
        return len(pieces_of(self._tokenizer, word)) == 1 and all(map(self._stays, characters))

    def _stays(self, character: str) -> bool:
        return bool(self._normalized(character))

    def _normalized(self, character: str) -> str:
        """What a character is made to within a word, or nothing where that is not apart."""
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            return character
        before, within = normalizer.normalize_str("x"), normalizer.normalize_str(f"x{character}x")
        is_apart = within.startswith(before) and within.endswith("x")
        return within[len(before) : -1] if is_apart else ""

    def _spaces(self) -> Iterator[str]:
        """Spaces of which few are as many, together if they are that too."""
        alone = "".join(self._free(space for space in SPACES if self._are_as_few(space)))
        if len(alone) > 1 and self._are_as_few(alone):
            yield alone
        else:
            yield from alone

    def _are_as_few(self, spaces: str) -> bool:
        few, many = self._asked.edge + self._keep, BLOCK
        made = [
            [pieces_of(self._tokenizer, (spaces * n)[:n].join(ends)) for ends in ("xx", ("x", ""))]
            + [pieces_of(self._tokenizer, (spaces * n)[:n] + "x")]
            for n in (few, few + 1, many)
        ]
        return made[0] == made[1] == made[2]


def _keeps_words(normalizer: dict[str, Any]) -> bool:
    """Whether a normalizer looks at near neighbours, or at runs of spaces, alone."""
    if normalizer["type"] != "Replace":
        return is_local(normalizer)
    found = normalizer["pattern"]
    return found.get("String") == " " or found.get("Regex") in RUNS
