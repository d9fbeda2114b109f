"""The parts that a tokenizer is made of, and how far each of them looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

# Characters at a cut, or at an end of a run, that may depend on what is on its other side: what
# normalizers combine.
EDGE = 32
# Normalizers that look no further than a character's near neighbours.
LOCAL = frozenset(
    {
        *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
        *("Precompiled", "Prepend", "Strip", "StripAccents"),
    }
)
RUNS = (" {2,}", r"\s+", r"\s{2,}")
# Pre-tokenizers that split or do not by two neighbours alone.
PAIRWISE = frozenset(
    {
        *("BertPreTokenizer", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation"),
        *("Whitespace", "WhitespaceSplit"),
    }
)
# Pre-tokenizers that split between characters of different kinds.
SPLITTING = PAIRWISE | {"ByteLevel", "UnicodeScripts"}


def parts(component: Any, members: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401
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


def is_local(normalizer: dict[str, Any]) -> bool:
    """Whether a normalizer looks no further than a character's near neighbours."""
    if normalizer["type"] != "Replace":
        return normalizer["type"] in LOCAL
    found = normalizer["pattern"]
    if "String" in found:
        return found["String"] == " " or not re.search(r"[\s\w。]", found["String"])
    return found["Regex"] in RUNS


def is_splitting(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer splits by the runs of characters that a place is in."""
    if pre_tokenizer["type"] != "Split":
        return pre_tokenizer["type"] in SPLITTING
    found = pre_tokenizer["pattern"]
    return "String" in found or _looks_no_further(found["Regex"])


def _looks_no_further(pattern: str) -> bool:
    """Whether matches of a pattern depend on no more than the runs of characters they are in."""
    rest = pattern.replace(r"(?!\S)", "")
    rest = re.sub(r"\[(?:\\.|[^\]\\])*\]|\\[pP]\{\w+\}|\\[sSrnt]|\\.", "", rest)
    return not re.search(r"[.^$]|\(\?(?!i?:)", rest)


def added_contents(tokenizer: Tokenizer) -> list[str]:
    """The texts of a tokenizer's added tokens, as they are and normalized."""
    tokens = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    normalizer = tokenizer.normalizer
    return [*tokens, *(normalizer.normalize_str(t) for t in tokens if normalizer)]


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """What a tokenizer's model gets of a text: normalized, and split before it is tokenized."""
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    text = normalizer.normalize_str(text) if normalizer else text
    if pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]


class Components:
    """What is asked of a tokenizer's parts more than once.

    Args:
        tokenizer: The tokenizer.

    Attributes:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def added(self) -> list[str]:
        """The texts of added tokens, see `added_contents`."""
        return added_contents(self.tokenizer)

    @cached_property
    def edge(self) -> int:
        """Characters next to a cut, or to a run's end, that stay; no added token is longer."""
        return max(EDGE, *map(len, self.added), 0)

    @cached_property
    def stated(self) -> dict[str, Any]:
        """The model as JSON, without its vocabulary, which may be large."""
        stated: dict[str, Any] = json.loads(self.tokenizer.model.__getstate__())
        return {name: value for name, value in stated.items() if name not in ("vocab", "merges")}
