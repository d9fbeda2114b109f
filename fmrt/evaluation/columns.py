"""The columns of a table that are its items, labels, splits, pairs and scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from fmrt.errors import DataError, OptionError, quoted
from fmrt.words import listed

T = TypeVar("T")
# Names that columns have in public data sets, in the order in which they count.
LABELS = ("label_text", "label", "labels", "class", "category", "target", "topic", "intent")
SPLITS = ("split", "subset")
PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("source", "target"),
    ("src", "tgt"),
    ("left", "right"),
    ("anchor", "positive"),
)
VALUES = {
    "text": ("text", "sentence", "content", "question", "query", "review", "body"),
    "image": ("image", "img", "path", "file_name"),
    "audio": ("audio", "path", "file_name"),
}
_RECORD = '{"text": "...", "label": "..."}'
SCORES = ("score", "similarity", "similarity_score", "is_duplicate", *LABELS)


@dataclass(frozen=True)
class Columns:
    """The names of columns; None for those that the table shows itself.

    Attributes:
        column: The column of the items, or of the first ones of pairs.
        label: The column of their classes.
        split: The column that says ``train`` or ``test``.
        second: The column of the second items of pairs.
        score: The column of the scores of pairs.
    """

    column: str | None = None
    label: str | None = None
    split: str | None = None
    second: str | None = None
    score: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, str) or not value):
                raise OptionError(f"{field.name}={quoted(value)}; give a name, as text")
        if self.second is None and self.score is not None:
            raise OptionError(f"score={self.score!r} is of pairs; name their second column too")
        if self.second is not None and self.label is not None:
            raise OptionError(f"label={self.label!r} is of single items; name the score of pairs")

    def given(self) -> list[str]:
        """The names of the columns that are given."""
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if value is not None]


def chosen(
    source: str,
    there: Sequence[str],
    asked: Columns,
    modality: str,
    media: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Columns:
    """The columns to read, of those that exist.

    Args:
        source: The table's name in messages.
        there: The names of the table's columns.
        asked: The columns that the user names.
        modality: The items' modality.
        media: The columns that are stated to hold images or sounds.
        classes: The columns that are stated to hold classes.

    Raises:
        DataError: A named column does not exist, or a name is needed to tell which column is meant.
    """
    if not there:
        raise DataError(f"{source!r} has no columns: each record must be an object, as {_RECORD}")
    for name in asked.given():
        if name not in there:
            raise DataError(f"{source!r} has no column {name!r}; it has {listed(there)}")
    pair = _pair(there, asked)
    if pair is not None:
        score = asked.score or _first(SCORES, there, {*pair})
        return Columns(pair[0], None, asked.split or _first(SPLITS, there), pair[1], score)
    label = asked.label or _first(LABELS, there, {asked.column})
    if label is None and len(classes) > 1:
        raise DataError(f"{source!r} has classes in {listed(classes)}; name one with --label")
    label = label or next(iter(classes), None)
    split = asked.split or _first(SPLITS, there, {asked.column, label})
    column = asked.column or _first((*VALUES[modality], *media), there, {label, split})
    rest = [name for name in there if name not in {label, split}]
    if column is None and len(rest) > 1:
        raise DataError(
            f"cannot tell which column of {source!r} to embed: it has {listed(there)}; name it "
            "with --column"
        )
    if column is None and not rest:
        raise DataError(f"{source!r} has no column to embed next to {listed(there)}")
    return Columns(column or rest[0], label, split)


def _pair(there: Sequence[str], asked: Columns) -> tuple[str | None, str] | None:
    if asked.second is not None:
        first = asked.column or _first([a for a, b in PAIRS if b == asked.second], there)
        return first, asked.second
    if asked.column is not None or asked.label is not None:
        return None
    return next((pair for pair in PAIRS if set(pair) <= set(there)), None)


def _first(
    names: Iterable[str], there: Sequence[str], taken: Iterable[str | None] = ()
) -> str | None:
    lower = {name.lower(): name for name in reversed(there) if name not in set(taken)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
