"""Where a long text can be cut before it is tokenized, so that its tokens stay what they are.

A text is cut between two words, or where a sentence ends in a script without spaces, and only where
the tokenizer provably treats both sides apart:

- Its normalizers change each character by itself and its near neighbours, and neither a space
  between two letters nor what is next to it has such neighbours.
- Its pre-tokenizer splits there, whatever follows; or its model is a BPE or Unigram one, and no
  token of the vocabulary reaches over such a place. Merges, and the best segmentation, are then
  those of each side.
- No added token reaches over such a place either.

A tokenizer of which that is not known has no such places. Where a text has none, its start may do
all the same, see `fmrt.preprocess.agreement`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from fmrt.preprocess.agreement import Agreement, pieces_of

# Bytes, each of which may be a token, of a character; and what may be put before a text.
MOST_TOKENS, IN_FRONT = 4, 8
# How far to look for a place, in characters.
NEAR = (256, 4096)
# Normalizers that look no further than a character's near neighbours.
LOCAL = frozenset(
    {
        *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
        *("Precompiled", "Prepend", "Strip", "StripAccents"),
    }
)
RUNS = (" {2,}", r"\s+", r"\s{2,}")
# Pre-tokenizers that split between characters of different kinds.
SPLITTING = frozenset(
    {
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace"),
        *("Punctuation", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    }
)
SEGMENTING = frozenset(("BPE", "Unigram"))
SPACE = "\u2581"  # of SentencePiece


@dataclass(frozen=True)
class Place:
    """A kind of place.

    Attributes:
        before, after: Patterns of what is on both sides.
        samples: Texts on both sides.
    """

    before: str
    after: str
    samples: tuple[tuple[str, str], ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the end of what is before it, so that the place is the match's end."""
        return re.compile(f"{self.before}(?={self.after})")


LETTER = r"[^\W\d_]"
PLACES = (
    Place(
        LETTER,
        f" {LETTER}",
        (("ab", " cd"), ("Ab", " Cd"), ("z", " zz a"), ("zz", " z"), ("да", " ты"), ("中", " 文")),
    ),
    Place(
        "[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3]",
        "\u3002",
        (("中文", "。中"), ("カナ", "。"), ("なか", "。カ"), ("中", "。。"), ("한국", "。한")),
    ),
    Place("[\u4e00-\u9fa5]", "[\u4e00-\u9fa5]", (("中", "文"), ("中文", "人"), ("人", "大中文"))),
)


class Cutter:
    """Cuts texts for a tokenizer.

    Args:
        tokenizer: The tokenizer, as it is used.
        left: Whether the tokenizer's truncation keeps a text's end.
    """

    def __init__(self, tokenizer: Tokenizer, *, left: bool) -> None:
        self._tokenizer = tokenizer
        self._left = left
        self._agreement = Agreement(tokenizer)

    def cut(self, text: str, most: int, prompt: str = "") -> tuple[str, int]:
        """At most ``most`` characters of a text, or all of it where there is no place to cut.

        Args:
            text: The text.
            most: The number of characters.
            prompt: What comes before the text.

        Returns:
            The part, and how many of its tokens are not those of the whole text: at its start
            where the text's end is kept, and else at its end.
        """
        if not self._left:
            end = self._place(text, most, before=True)
            return self._agreed(text, most, prompt) if end is None else (text[:end], 0)
        start = self._place(text, len(text) - most, before=False)
        sure = None if start is None else self._place(text, start + 1, before=False)
        if start is None or sure is None:
            return text, 0
        return text[start:], MOST_TOKENS * (sure - start) + IN_FRONT

    def _agreed(self, text: str, most: int, prompt: str) -> tuple[str, int]:
        """The start of a text without places, as far as its tokens are sure."""
        end = self._between(text, most) if self._is_near_sighted else None
        unsure = None if end is None else self._agreement.unsure(prompt + text[:end])
        return (text, 0) if end is None or unsure is None else (text[:end], unsure)

    @staticmethod
    def _between(text: str, most: int) -> int | None:
        """The last place between two letters or digits, which nothing combines with."""
        ends = range(most, max(1, most - NEAR[0]), -1)
        return next((end for end in ends if text[end - 1 : end + 1].isalnum()), None)

    @cached_property
    def _is_near_sighted(self) -> bool:
        """Whether normalizers and pre-tokenizers look at near neighbours alone."""
        tokenizer = self._tokenizer
        return all(map(_is_local, _parts(tokenizer.normalizer, "normalizers"))) and all(
            map(_is_splitting, _parts(tokenizer.pre_tokenizer, "pretokenizers"))
        )

    def _place(self, text: str, near: int, *, before: bool) -> int | None:
        """The place next to a position, before or after it."""
        if self._pattern is None:
            return None
        for distance in NEAR:
            start = max(0, near - distance if before else near)
            # A match needs what comes after its place, too.
            found = self._pattern.finditer(text, start, min(len(text), start + distance + 2))
            ends = [match.end() for match in found]
            ends = [end for end in ends if (end <= near if before else end >= near)]
            if ends:
                return ends[-1] if before else ends[0]
        return None

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """A pattern of all places where this tokenizer's texts can be cut."""
        if not self._is_near_sighted:
            return None
        places = [p for p in PLACES if not self._joins_added(p) and self._is_apart(p)]
        return re.compile("|".join(p.pattern.pattern for p in places)) if places else None

    def _joins_added(self, place: Place) -> bool:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return any(place.pattern.search(token.content.replace(SPACE, " ")) for token in added)

    def _is_apart(self, place: Place) -> bool:
        if all(self._is_split(*sample) for sample in place.samples):
            return True
        if type(self._tokenizer.model).__name__ not in SEGMENTING or not self._has_space:
            return False
        if not all(self._is_kept(*sample) for sample in place.samples):
            return False
        return not any(map(self._crossing(place).search, self._vocabulary))

    def _is_split(self, left: str, right: str) -> bool:
        """Whether the pre-tokenizer splits there, and the left is what it is alone."""
        alone, both = pieces_of(self._tokenizer, left), pieces_of(self._tokenizer, left + right)
        return both[: len(alone)] == alone and len(both) > len(alone)

    def _is_kept(self, left: str, right: str) -> bool:
        """Whether the model sees one piece, in which the place is still what it is in the text."""
        both = pieces_of(self._tokenizer, left + right)
        return len(both) == 1 and both[0].replace(SPACE, " ").endswith(left + right)

    @staticmethod
    def _crossing(place: Place) -> re.Pattern[str]:
        """Matches tokens that reach over a place, or may be a part of one that does."""
        return re.compile(f".{place.after[0]}" if place.after[0] == " " else place.pattern.pattern)

    @cached_property
    def _vocabulary(self) -> list[str]:
        """Tokens, without the spaces they begin with."""
        tokens = self._tokenizer.get_vocab(with_added_tokens=False)
        return [token.replace(SPACE, " ").lstrip(" ") for token in tokens]

    @cached_property
    def _has_space(self) -> bool:
        """Whether a space is a token; otherwise unknown tokens on both sides could become one."""
        return self._tokenizer.token_to_id(SPACE) is not None


def _parts(component: Any, members: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """A normalizer or pre-tokenizer as JSON, or those of a sequence."""
    if component is None:
        return
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        part = waiting.pop()
        if part["type"] == "Sequence":
            waiting += part[members]
        else:
            yield part


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] != "Replace":
        return normalizer["type"] in LOCAL
    found = normalizer["pattern"]
    if "String" in found:
        return found["String"] == " " or not re.search(r"[\s\w。]", found["String"])
    return found["Regex"] in RUNS


def _is_splitting(pre_tokenizer: dict[str, Any]) -> bool:
    if pre_tokenizer["type"] != "Split":
        return pre_tokenizer["type"] in SPLITTING
    found = pre_tokenizer["pattern"]
    return "String" in found or _looks_no_further(found["Regex"])


def _looks_no_further(pattern: str) -> bool:
    """Whether matches of a pattern depend on no more than the runs of characters they are in."""
    rest = pattern.replace(r"(?!\S)", "")
    rest = re.sub(r"\[(?:\\.|[^\]\\])*\]|\\[pP]\{\w+\}|\\[sSrnt]|\\.", "", rest)
    return not re.search(r"[.^$]|\(\?(?!i?:)", rest)
