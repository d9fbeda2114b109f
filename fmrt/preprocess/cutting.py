"""Where a long text can be cut before it is tokenized, so that its tokens stay what they are.

A text is cut between two words, or where a sentence ends in a script without spaces, and only where
the tokenizer provably treats both sides apart:

- Its normalizers change each character by itself and its near neighbours, and neither a space
  between two letters nor what is next to it has such neighbours.
- Its pre-tokenizer splits there, whatever follows; or its model is a BPE or Unigram one, and no
  token of the vocabulary reaches over such a place. Merges, and the best segmentation, are then
  those of each side.
- No added token reaches over that place either.

A tokenizer of which that is not known has no such places. Where a text has none, its start or its
end may do all the same, see `fmrt.preprocess.agreement`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from fmrt.preprocess.agreement import SPACE, Agreement
from fmrt.preprocess.components import (
    EDGE,
    Components,
    is_local,
    is_splitting,
    parts,
    pieces_of,
)
from fmrt.preprocess.runs import Shortener

# How far to look for a place, in characters.
NEAR = (256, 4096)
# How much of a text's end is turned round at first, in characters.
SEEN = 131_072
SEGMENTING = frozenset(("BPE", "Unigram"))
# Letters, digits, symbols and spaces: the kinds of characters that no other is combined with.
APART = frozenset(
    {
        *("Ll", "Lo", "Lt", "Lu", "Nd", "Nl", "No"),
        *("Pc", "Pd", "Pe", "Po", "Ps", "Sc", "Sm", "So", "Zs"),
    }
)
JAMO = range(0x1100, 0x1200)


@dataclass(frozen=True)
class Place:
    """A kind of place.

    Attributes:
        before, after: The patterns of what is on both sides.
        samples: The texts on both sides.
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


class Whole:
    """A text as it is.

    Args:
        text: The text.

    Attributes:
        text: The text.
        is_shorter: Whether its long runs are shorter.
    """

    is_shorter = False

    def __init__(self, text: str) -> None:
        self.text = text

    def near(self, characters: int) -> str:  # noqa: ARG002
        """What is cut, of at least so many characters where there are so many."""
        return self.text


class Shortened(Whole):
    """A text whose long runs are shorter, as far as it is asked for.

    Args:
        shortener: What shortens the text.
        text: The text.
        left: Whether the text's end is asked for.
    """

    is_shorter = True

    def __init__(self, shortener: Shortener, text: str, *, left: bool) -> None:
        super().__init__(text)
        self._shortener = shortener
        self._left = left
        self._look_at(min(len(text), SEEN) if left else len(text))

    def _look_at(self, characters: int) -> None:
        """Begin with so much of the text, of which the end is turned round."""
        text = self.text[: -characters - 1 : -1] if self._left else self.text
        self._seen = characters
        self._pieces = self._shortener.pieces(text)
        self._made = ""

    def near(self, characters: int) -> str:
        """The start, or the end, of at least so many characters where there are so many."""
        while True:
            made, size = [self._made], len(self._made)
            while size < characters and (piece := next(self._pieces, None)) is not None:
                made.append(piece)
                size += len(piece)
            self._made = "".join(made)
            if size >= characters or self._seen == len(self.text):
                return self._made[::-1] if self._left else self._made
            self._look_at(min(len(self.text), 4 * self._seen))


class Cutter:
    """Cuts texts for a tokenizer.

    Args:
        tokenizer: The tokenizer, as it is used.
        left: Whether the tokenizer's truncation keeps a text's end.
    """

    def __init__(self, tokenizer: Tokenizer, *, left: bool) -> None:
        self._tokenizer = tokenizer
        self._left = left
        self._asked = Components(tokenizer)
        self._agreement = Agreement(self._asked)

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
        if self._left:
            return self._end_of(text, len(text) - most)
        end = self._place(text, most, before=True)
        if end is not None:
            return text[:end], 0
        end = self._between(text, range(most, max(1, most - NEAR[0]), -1), self._is_between)
        unsure = None if end is None else self._agreement.unsure(prompt + text[:end])
        return (text, 0) if end is None or unsure is None else (text[:end], unsure)

    def _end_of(self, text: str, near: int) -> tuple[str, int]:
        start = self._place(text, near, before=False)
        sure = None if start is None else self._place(text, start + 1, before=False)
        if start is not None and sure is not None:
            return text[start:], self._agreement.most_tokens(text[start:sure])
        places = range(near, max(1, near - NEAR[0]), -1)
        fits = self._is_between if self._agreement.looks_at_pairs else _is_within
        start = self._between(text, places, fits)
        unsure = None if start is None else self._agreement.unsure_before(text[start:])
        return (text, 0) if start is None or unsure is None else (text[start:], unsure)

    @staticmethod
    def whole(text: str) -> Whole:
        """A text as it is."""
        return Whole(text)

    def shortened(self, text: str) -> Shortened:
        """A text of the same tokens, see `Shortener.pieces`."""
        return Shortened(self._shortener, text, left=self._left)

    @cached_property
    def reach(self) -> int:
        """Characters beyond a place near which a text is to be cut that `cut` may look at."""
        return 2 * NEAR[1] + self._reach

    @cached_property
    def _shortener(self) -> Shortener:
        return Shortener(self._asked)

    def _between(
        self, text: str, places: Iterable[int], fits: Callable[[str, int], bool]
    ) -> int | None:
        """The first place that fits, between two characters which nothing combines with."""
        if not self._is_near_sighted:
            return None
        return next((place for place in places if fits(text, place)), None)

    def _is_between(self, text: str, place: int) -> bool:
        """Whether nothing combines the characters on both sides of a place, or drops one."""
        if self._tokenizer.normalizer is None:
            return True
        return _kind(text[place - 1]) is not None and _kind(text[place]) is not None

    @cached_property
    def _is_near_sighted(self) -> bool:
        """Whether normalizers and pre-tokenizers look at near neighbours alone."""
        tokenizer = self._tokenizer
        return all(map(is_local, parts(tokenizer.normalizer, "normalizers"))) and all(
            map(is_splitting, parts(tokenizer.pre_tokenizer, "pretokenizers"))
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
            end = next(
                (e for e in (ends[::-1] if before else ends) if self._is_free(text, e)), None
            )
            if end is not None:
                return end
        return None

    def _is_free(self, text: str, place: int) -> bool:
        """Whether no added token may reach over a place."""
        near = text[max(0, place - self._reach) : place + self._reach]
        normalizer = self._tokenizer.normalizer
        texts = {near, normalizer.normalize_str(near) if normalizer and self._joining else near}
        return not any(added in one for added in self._joining for one in texts)

    @cached_property
    def _joining(self) -> list[str]:
        """Added tokens that may reach over a place."""
        added = {token.replace(SPACE, " "): token for token in self._asked.added}
        return [t for text, t in added.items() if any(p.pattern.search(text) for p in PLACES)]

    @cached_property
    def _reach(self) -> int:
        return EDGE + 2 * max(map(len, self._joining), default=0)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """A pattern of all places where this tokenizer's texts can be cut."""
        if not self._is_near_sighted:
            return None
        places = list(filter(self._is_apart, PLACES))
        return re.compile("|".join(p.pattern.pattern for p in places)) if places else None

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


def _is_within(text: str, place: int) -> bool:
    """Whether a place is in a run of letters, digits, spaces or others; a quote may begin 's."""
    around = text[place - 1 : place + 2]
    kinds = set(map(_kind, around))
    return place + 1 < len(text) and len(kinds) == 1 and None not in kinds and "'" not in around


def _kind(character: str) -> str | None:
    """What a character is, or None if it may be combined with its neighbours, or dropped."""
    if character in "\t\n\r":
        return "Z"
    category = unicodedata.category(character)
    if category not in APART or ord(character) in JAMO:
        return None
    return category[0] if category[0] in "LNZ" else "P"
