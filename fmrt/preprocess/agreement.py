"""How many tokens of a part of a text are sure, where it has no safe place to be cut.

Only the pieces next to the cut, as the pre-tokenizer makes them, depend on what was cut off. Of a
piece that goes on and on, such as a line of Chinese or of base64:

- BPE never merges over the end of a token, so the tokens on both sides of a token's end are what
  each side gives alone. The best segmentation of Unigram up to the end of a token is that of what
  comes before it; that of what comes after it depends on how sums are rounded.
- One token ends at any place, or else begins before it and reaches over it; those that may are in
  the vocabulary. The tokens that the piece gives on this side of each of these ends have in common
  are sure. An unknown character is apart from the others; where a run of them is one token, the
  part of the run on either side is that token, too.
- WordPiece has no such property: a word that is too long is one unknown token, see
  `fmrt.preprocess.runs`.

An added token is taken out of the text before all this, so what is next to one depends on nothing
on its other side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import takewhile

from tokenizers import Tokenizer, models

from fmrt.preprocess.components import EDGE, PAIRWISE, Components, parts, pieces_of

# Most ends of a token that are tried.
MOST_ENDS = 64
# Tokens of what may be put before a text.
IN_FRONT = 8
SPACE = "\u2581"  # of SentencePiece


class Agreement:
    """Finds which tokens of a text's start, or of its end, are sure.

    Args:
        components: What the tokenizer is made of; what prepares its texts looks at near
            neighbours alone.
    """

    def __init__(self, components: Components) -> None:
        self._asked = components
        self._tokenizer = components.tokenizer

    def unsure(self, start: str) -> int | None:
        """How many tokens at the end of a text's start may not be those of the whole.

        Args:
            start: The start, which ends between two characters that nothing combines.

        Returns:
            The number, or None if it is not known.
        """
        added = self._added_in(start)
        after = max((end for _, end in added), default=0)
        last = start[after:]
        if len(last) <= 2 * self._asked.edge:
            sure = max((e for _, e in added if e <= len(start) - self._asked.edge), default=None)
            return None if sure is None else self.most_tokens(start[sure:])
        edge = 2 * sum(map(len, pieces_of(self._tokenizer, last[-self._asked.edge :])))
        near, others = _nearest(pieces_of(self._tokenizer, last)[::-1], edge)
        near.reverse()
        if len(near) == 1 and len(near[0]) > 2 * edge + self._longest:
            # What is after an added token may get no space before it.
            forms = {near[0], near[0].removeprefix(SPACE)} if added and not others else {near[0]}
            found = [self._unsure_at_end(piece, edge) for piece in forms]
            if all(count is not None for count in found):
                return max(count for count in found if count is not None)
        return self._tokens(near) + IN_FRONT if others or added else None

    def unsure_before(self, end: str) -> int | None:
        """How many tokens at the start of a text's end may not be those of the whole.

        Args:
            end: The end, which starts between two characters that nothing combines; unless
                `looks_at_pairs`, within three of one kind.

        Returns:
            The number, or None if it is not known.
        """
        added = self._added_in(end)
        until = min((start for start, _ in added), default=len(end))
        first = end[:until]
        edge = 2 * sum(map(len, pieces_of(self._tokenizer, end[: self._asked.edge])))
        if until > 2 * self._asked.edge and self._finds_pieces:
            near, others = _nearest(pieces_of(self._tokenizer, first), edge)
            if len(near) == 1 and len(near[0]) > 2 * edge + self._longest:
                count = self._unsure_at_start(near[0], edge)
                if count is not None:
                    return count
            if others:
                return self._tokens(near)
        sure = (s for s, e in added if s >= self._asked.edge and self._is_found_anywhere(end[s:e]))
        place = next(sure, None)
        return None if place is None else self.most_tokens(end[:place])

    def most_tokens(self, text: str) -> int:
        """A number that the tokens of a part of a text are below: each has a byte at least."""
        normalizer = self._tokenizer.normalizer
        text = normalizer.normalize_str(text) if normalizer else text
        return len(text.encode()) + IN_FRONT

    def _tokens(self, pieces: Iterable[str]) -> int:
        return sum(len(self._tokenizer.model.tokenize(piece)) for piece in pieces)

    def _unsure_at_end(self, piece: str, edge: int) -> int | None:
        """Of a piece that goes on, of which the ``edge`` may be another."""
        if not self._segments:
            return None
        last = len(piece) - edge - self._longest
        places = range(last, max(2 * self._longest, last - EDGE), -1)
        ends = self._ends(piece, places, lambda begin, _: begin)
        made = [self._ids(self._inner, piece[:end]) for end in ends]
        return len(self._ids(self._tokenizer.model, piece)) - _common(made) if made else None

    def _unsure_at_start(self, piece: str, edge: int) -> int | None:
        """Of a piece that began before, of which the ``edge`` may be another."""
        if not self._segments or self._asked.stated["type"] != "BPE":
            return None
        if self._asked.stated.get("continuing_subword_prefix"):
            return None
        first = edge + self._longest
        places = range(first, min(len(piece) - 2 * self._longest, first + EDGE))
        ends = self._ends(piece, places, lambda _, end: end)
        model = self._tokenizer.model
        made = [self._ids(model, piece[end:])[::-1] for end in ends]
        return len(self._ids(model, piece)) - _common(made) if made else None

    def _ends(
        self, piece: str, places: Iterable[int], side: Callable[[int, int], int]
    ) -> list[int]:
        """Ends of tokens, one of which there is, at the first place for which they are few."""
        for place in places:
            ends = {side(*span) for span in self._over(piece, place)}
            if len(ends) < MOST_ENDS:
                return [*ends, place]
        return []

    def _over(self, piece: str, place: int) -> Iterable[tuple[int, int]]:
        """Where a token may be that begins before a place and ends after it."""
        for begin in range(max(0, place - self._longest + 1), place):
            for end in range(place + 1, min(len(piece), begin + self._longest) + 1):
                if piece[begin:end] in self._known:
                    yield begin, end

    @staticmethod
    def _ids(model: models.Model, piece: str) -> list[int]:
        return [token.id for token in model.tokenize(piece)]

    def _added_in(self, text: str) -> list[tuple[int, int]]:
        """Where a text's added tokens are."""
        normalizer = self._tokenizer.normalizer
        texts = {text, normalizer.normalize_str(text) if normalizer else text}
        if not any(added in one for added in self._asked.added for one in texts):
            return []
        found = self._skeleton.encode(text, add_special_tokens=False)
        spans = zip(found.ids, found.offsets, strict=True)
        return [(start, end) for token, (start, end) in spans if token]

    @cached_property
    def _skeleton(self) -> Tokenizer:
        """The tokenizer with a model to which each piece is the token 0."""
        skeleton = Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        skeleton.normalizer = self._tokenizer.normalizer
        skeleton.pre_tokenizer = self._tokenizer.pre_tokenizer
        for token in self._tokenizer.get_added_tokens_decoder().values():
            (skeleton.add_special_tokens if token.special else skeleton.add_tokens)([token])
        return skeleton

    def _is_found_anywhere(self, added: str) -> bool:
        """Whether no other added token may begin before one and reach into it."""
        first = added.lstrip()[:1]
        return bool(first) and not any(first in other[1:] for other in self._asked.added)

    @cached_property
    def looks_at_pairs(self) -> bool:
        """Whether a text is split or not by two neighbours alone, wherever it starts."""
        return PAIRWISE.issuperset(self._splits)

    @property
    def _finds_pieces(self) -> bool:
        """Whether pieces are the same from the second on, if a text starts within such three."""
        return self.looks_at_pairs or self._splits == ["ByteLevel"]

    @cached_property
    def _splits(self) -> list[str]:
        return [p["type"] for p in parts(self._tokenizer.pre_tokenizer, "pretokenizers")]

    @cached_property
    def _known(self) -> frozenset[str]:
        """What a token may be of the inside of a piece."""
        prefix = self._asked.stated.get("continuing_subword_prefix") or ""
        tokens = self._tokenizer.get_vocab(with_added_tokens=False)
        return frozenset(tokens).union(token.removeprefix(prefix) for token in tokens)

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self._known), default=1)

    @cached_property
    def _segments(self) -> bool:
        """Whether the model is one of which the above is true."""
        return self._asked.stated["type"] == "Unigram" or (
            self._asked.stated["type"] == "BPE" and not self._asked.stated.get("dropout")
        )

    @cached_property
    def _inner(self) -> models.Model:
        """The model, to which a piece's end is not a word's."""
        if not self._asked.stated.get("end_of_word_suffix"):
            model: models.Model = self._tokenizer.model
            return model
        stated = json.loads(self._tokenizer.model.__getstate__())
        inner = models.BPE()
        inner.__setstate__(json.dumps({**stated, "end_of_word_suffix": None}).encode())
        return inner


def _nearest(pieces: Sequence[str], least: int) -> tuple[list[str], bool]:
    """The first pieces of at least so many characters, and whether there are others."""
    near, size = list[str](), 0
    for piece in pieces:
        if near and size >= least:
            return near, True
        near.append(piece)
        size += len(piece)
    return near, False


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many first values all rows have in common."""
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False)))
