"""How many tokens of a text's start are sure, where the text has no safe place to be cut.

Only a text's last pieces, as the pre-tokenizer makes them, depend on what follows. Of a piece that
goes on and on, such as a line of Chinese or of base64:

- BPE never merges over the end of a token, and the best segmentation of Unigram up to the end of a
  token is that of what comes before it. So the tokens before any token's end are what the piece up
  to there gives alone.
- One token ends at any place, or else begins before it and reaches over it; those that may are in
  the vocabulary. The tokens that the piece up to each of these ends has in common are sure.
- WordPiece has no such property: a word that is too long is one unknown token.
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import takewhile
from typing import Any

from tokenizers import Tokenizer

# Characters at an end that may depend on what follows it: what normalizers combine.
EDGE = 32
# Most ends of a token that are tried.
MOST_ENDS = 64


class Agreement:
    """Finds which tokens of a text's start are sure.

    Args:
        tokenizer: The tokenizer; what prepares its texts looks at near neighbours alone.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def unsure(self, start: str) -> int | None:
        """How many tokens at the end of a text's start may not be those of the whole.

        Args:
            start: The start, which ends between two letters or digits.

        Returns:
            The number, or None if it is not known.
        """
        if len(start) <= 2 * self._edge or self._has_added(start):
            return None
        pieces = pieces_of(self._tokenizer, start)
        edge = 2 * sum(map(len, pieces_of(self._tokenizer, start[-self._edge :])))
        last: list[str] = []
        while pieces and (not last or sum(map(len, last)) < edge):
            last.insert(0, pieces.pop())
        if pieces:
            return sum(len(self._tokenizer.model.tokenize(piece)) for piece in last)
        return self._unsure_of(last[0], edge) if len(last) == 1 else None

    def _unsure_of(self, piece: str, edge: int) -> int | None:
        """The same of a piece that goes on, of which the ``edge`` may be another."""
        if not self._segments:
            return None
        last = len(piece) - edge - self._longest
        tried = (self._ends(piece, place) for place in range(last, max(0, last - EDGE), -1))
        ends = next(filter(None, tried), None)
        if ends is None:
            return None
        tokens = [[t.id for t in self._tokenizer.model.tokenize(piece[:end])] for end in ends]
        sure = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*tokens, strict=False)))
        return len(self._tokenizer.model.tokenize(piece)) - sure

    def _ends(self, piece: str, place: int) -> list[int]:
        """Where the last token may end that ends at a place or before; none if that is unknown."""
        known = self._vocabulary
        # A run of unknown characters may be one token, however long.
        if piece[place - 1] not in known or piece[place] not in known:
            return []
        first = max(1, place - self._longest)
        ends = [
            begin
            for begin in range(first, place)
            if any(
                piece[begin:end] in known
                for end in range(place + 1, min(len(piece), begin + self._longest) + 1)
            )
        ]
        return [*ends, place] if len(ends) < MOST_ENDS else []

    def _has_added(self, text: str) -> bool:
        """Whether a part of a text may be a token of its own, apart from all others."""
        normalizer = self._tokenizer.normalizer
        texts = {text, normalizer.normalize_str(text) if normalizer else text}
        return any(added in one for added in self._added for one in texts)

    @cached_property
    def _added(self) -> list[str]:
        tokens = [t.content for t in self._tokenizer.get_added_tokens_decoder().values()]
        normalizer = self._tokenizer.normalizer
        return [*tokens, *(normalizer.normalize_str(t) for t in tokens if normalizer)]

    @cached_property
    def _edge(self) -> int:
        return max(EDGE, *map(len, self._added), 0)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=False)

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self._vocabulary), default=1)

    @cached_property
    def _segments(self) -> bool:
        """Whether the model is one of which the above is true."""
        stated: dict[str, Any] = json.loads(self._tokenizer.model.__getstate__())
        if stated["type"] == "Unigram":
            return True
        marks = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        return stated["type"] == "BPE" and not any(stated.get(name) for name in marks)


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """What a tokenizer's model gets of a text: normalized, and split before it is tokenized."""
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    text = normalizer.normalize_str(text) if normalizer else text
    if pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
