"""What reading a file can yield, and what is known of the whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Record(NamedTuple):
    """One item of the input.

    Attributes:
        number: The line of the file, from 1; the line where the record starts for csv, the row for
            parquet.
        value: What to embed: a text, a path, or the bytes of a file.
        kept: The columns asked to be carried along, by name.
    """

    number: int
    value: str | bytes
    kept: Mapping[str, object] = _NOTHING


def kept_bytes(record: Record) -> int:
    """Bytes of memory of the columns that are carried along, without what is embedded."""
    return sum(cell_bytes(cell) for cell in record.kept.values() if cell is not record.value)


def cell_bytes(cell: object) -> int:
    """Bytes of memory of a value of a table, all that is in it included."""
    size = 0
    waiting = [cell]
    while waiting:
        inner = waiting.pop()
        size += sys.getsizeof(inner)
        if isinstance(inner, Mapping):
            waiting.extend(chain(inner.keys(), inner.values()))
        elif isinstance(inner, list | tuple):
            waiting.extend(inner)
    return size


class BadRecord(NamedTuple):
    """One record of the input that holds nothing usable.

    Attributes:
        number: The number, as in ``Record``.
        reason: What is wrong with it, on one line, without the position.
    """

    number: int
    reason: str


class PassedOver(NamedTuple):
    """A file or a folder in a folder that has no record.

    Attributes:
        path: The path, relative to the folder.
        reason: The reason in a few words.
    """

    path: str
    reason: str


class Records(Iterator[Record | BadRecord]):
    """The records of an input, to be read once.

    Attributes:
        choices: What was decided about the input that it does not say itself, one line per choice.
        passed_over: The files of a folder without a record.
        table: Whether records come from a table, and strings in it may be relative paths.
    """

    def __init__(
        self,
        records: Iterator[Record | BadRecord],
        *,
        choices: Sequence[str] = (),
        passed_over: Sequence[PassedOver] = (),
        table: bool = False,
    ) -> None:
        self._records = records
        self.choices = tuple(choices)
        self.passed_over = tuple(passed_over)
        self.table = table

    def __iter__(self) -> Iterator[Record | BadRecord]:
        return self._records

    def __next__(self) -> Record | BadRecord:
        return next(self._records)
