"""Separated values with a header row, as Python's csv module reads them."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from itertools import chain, islice

from fmrt.data._columns import Columns, Wanted, pick
from fmrt.data._dialect import (
    HEAD_BYTES,
    HEAD_LINES,
    check_header,
    delimiter_of,
    needs_next,
    separator,
)
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import LongLine, empty, numbered_lines, peeked
from fmrt.errors import DataError
from fmrt.system.limits import HINT, SMALL_LINE, Limits, megabytes, structure_problem
from fmrt.words import shown

Row = tuple[int, list[str]]
# Far above any text, yet a quote that is never closed does not read a whole huge file into memory.
_FIELD_CHARACTERS = 1 << 24


def read_csv(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the records of a comma-separated ``source``, numbered by the line they start on.

    Where another delimiter fits, it is taken, and noted.
    """
    return _read(source, wanted, ",")


def read_tsv(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the records of a tab-separated ``source``; fields may be quoted as in csv."""
    return _read(source, wanted, "\t")


def _read(source: str, wanted: Wanted, usual: str) -> Iterator[Record | BadRecord]:
    numbered = numbered_lines(source, wanted.choices, wanted.limits)
    head = list(islice(numbered, 1) if wanted.delimiter else _head(numbered))
    if wanted.delimiter and head and needs_next(head[0][1]):
        head += islice(numbered, 1)  # else no line of a pipe waits for the next
    first, following = [*(line.decode(errors="replace") for _, line in head[:2]), "", ""][:2]
    stated = separator(source, first, following, wanted.delimiter)
    if stated is not None:
        head = head[1:]
    lines = [
        line.decode(errors="replace")
        for _, line in head
        if not structure_problem(line, wanted.limits)
    ]
    delimiter = wanted.delimiter or stated or delimiter_of(source, lines, usual, wanted)
    rows = _rows(_Lines(chain(head, numbered), 2 if stated else 1, wanted.limits), delimiter)
    header, rows = _header(source, rows, wanted)
    columns = pick(source, dict.fromkeys(header, True), wanted)
    for name in {columns.value, *wanted.keep}:
        if header.count(name) > 1:
            raise DataError(f"{shown(source)} has more than one column {name!r}; rename them")
    place = header.index(columns.value)
    return (_record(row, header, place, columns) for row in peeked(source, rows))


def _head(numbered: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The first lines, from which the dialect is told."""
    size = 0
    for number, line in numbered:
        yield number, line
        size += len(line)
        if number >= HEAD_LINES or size >= HEAD_BYTES:
            return


def _header(
    source: str, rows: Iterator[Row | BadRecord], wanted: Wanted
) -> tuple[list[str], Iterator[Row | BadRecord]]:
    """Names of the columns, and the rows after them; without a header, numbers from 1."""
    first = next(rows, None)
    if first is None:
        raise empty(source)
    if isinstance(first, BadRecord):
        raise DataError(f"cannot read the header row of {shown(source)}: {first.reason}")
    if wanted.header:
        check_header(source, first[1], wanted)
        return first[1], rows
    return [str(number) for number, _ in enumerate(first[1], 1)], chain([first], rows)


def _record(
    row: Row | BadRecord, header: list[str], place: int, columns: Columns
) -> Record | BadRecord:
    if isinstance(row, BadRecord):
        return row
    number, fields = row
    if len(fields) != len(header):
        return BadRecord(number, f"{len(fields)} fields where the header has {len(header)}")
    if not columns.keep:  # a table of one row takes as long as reading it
        return Record(number, fields[place])
    return columns.record(number, dict(zip(header, fields, strict=True)))


def _rows(lines: _Lines, delimiter: str) -> Iterator[Row | BadRecord]:
    # strict: otherwise an unclosed quote silently swallows the rest of the file as one text.
    reader: Iterator[list[str]] = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.begin_row()
        reason = ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            reason = f"not valid CSV: {e}".replace("\t", "\\t")  # the delimiter, in its words
        finally:
            if lines.is_long:
                lines.end_row()
        if reason:
            yield BadRecord(start, reason)
        elif not lines.valid:
            yield BadRecord(start, "not valid UTF-8")
        elif fields:
            yield start, fields


class _LongFields:
    """Raises csv's limit of a field while a long row is read: it is one for all of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before = 0

    def begin(self) -> None:
        """Raise the limit."""
        with self._lock:
            if not self._readers:
                self._before = csv.field_size_limit()
                csv.field_size_limit(max(_FIELD_CHARACTERS, self._before))
            self._readers += 1

    def end(self) -> None:
        """Set it as it was, unless another reader needs it."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                csv.field_size_limit(self._before)


_long_fields = _LongFields()


class _Lines:
    """Decoded lines for csv.reader, which remember the position and whether they were UTF-8."""

    def __init__(self, lines: Iterator[tuple[int, bytes]], first: int, limits: Limits) -> None:
        self._lines = lines
        self._limits = limits
        self._row_bytes = 0
        self._number = first - 1
        self._usual = csv.field_size_limit()
        # A row of so many bytes is within every limit.
        self._unchecked = min(self._usual, limits.line_bytes, SMALL_LINE - 1)
        self.is_long = False
        self.valid = True

    def begin_row(self) -> int:
        """Return the number of the next line, and take it to be valid."""
        self.valid = True
        self._row_bytes = 0
        return self._number + 1

    def end_row(self) -> None:
        """Give back what a long row has raised."""
        self.is_long = False
        _long_fields.end()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        self._row_bytes += len(line)
        if self._row_bytes > self._unchecked or isinstance(line, LongLine):
            self._check(line)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.valid = False
            return line.decode(errors="replace")

    def _check(self, line: bytes) -> None:
        """Raise what csv raises, if the row takes too much memory with this line."""
        if isinstance(line, LongLine):
            raise csv.Error(line.decode())
        if self._row_bytes > self._usual and not self.is_long:
            self.is_long = True
            _long_fields.begin()
        if self._row_bytes > self._limits.line_bytes:
            most = megabytes(self._limits.line_bytes)
            raise csv.Error(f"the row has over {most}; close its quotes, or {HINT}")
        if problem := structure_problem(line, self._limits):
            raise csv.Error(problem)
