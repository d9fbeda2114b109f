"""Comma- or tab-separated values with a header row, as Python's csv module reads them."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Sequence

from fmrt.data._columns import Columns, pick
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import empty, numbered_lines, peeked, shown
from fmrt.errors import DataError

Row = tuple[int, list[str]]
# Far above any text, yet a quote that is never closed does not read a whole huge file into memory.
_FIELD_CHARACTERS = 1 << 24


def read_csv(source: str, column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
    """Return the records of a comma-separated ``source``, numbered by the line they start on."""
    return _read(source, column, keep, ",")


def read_tsv(source: str, column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
    """Return the records of a tab-separated ``source``; fields may be quoted as in csv."""
    return _read(source, column, keep, "\t")


def _read(
    source: str, column: str | None, keep: Sequence[str], delimiter: str
) -> Iterator[Record | BadRecord]:
    rows = _rows(_Lines(source), delimiter)
    header = _header(source, rows)
    columns = pick(source, dict.fromkeys(header, True), column, keep)
    for name in {columns.value, *keep}:
        if header.count(name) > 1:
            raise DataError(f"{shown(source)} has more than one column {name!r}; rename them")
    return (_record(row, header, columns) for row in peeked(source, rows))


def _header(source: str, rows: Iterator[Row | BadRecord]) -> list[str]:
    first = next(rows, None)
    if first is None:
        raise empty(source)
    if isinstance(first, BadRecord):
        raise DataError(f"cannot read the header row of {shown(source)}: {first.reason}")
    return first[1]


def _record(row: Row | BadRecord, header: list[str], columns: Columns) -> Record | BadRecord:
    if isinstance(row, BadRecord):
        return row
    number, fields = row
    if len(fields) != len(header):
        return BadRecord(number, f"{len(fields)} fields where the header has {len(header)}")
    return columns.record(number, dict(zip(header, fields, strict=True)))


def _rows(lines: _Lines, delimiter: str) -> Iterator[Row | BadRecord]:
    # strict: otherwise an unclosed quote silently swallows the rest of the file as one text.
    reader: Iterator[list[str]] = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.begin_row()
        try:
            with _long_fields:
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield BadRecord(start, f"not valid CSV: {e}")
            continue
        if not lines.valid:
            yield BadRecord(start, "not valid UTF-8")
        elif fields:
            yield start, fields


class _LongFields:
    """Raises csv's limit of a field while a row is read: it is one for all of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._before = csv.field_size_limit()
                csv.field_size_limit(max(_FIELD_CHARACTERS, self._before))
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                csv.field_size_limit(self._before)


_long_fields = _LongFields()


class _Lines:
    """Decoded lines for csv.reader, which remember the position and whether they were UTF-8."""

    def __init__(self, source: str) -> None:
        self._lines = numbered_lines(source)
        self._number = 0
        self.valid = True

    def begin_row(self) -> int:
        """Return the number of the next line, and take it to be valid."""
        self.valid = True
        return self._number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.valid = False
            return line.decode(errors="replace")
