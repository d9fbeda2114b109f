"""Plain text: one text a line."""

from __future__ import annotations

from collections.abc import Iterator

from fmrt.data._columns import TEXT, Columns, Wanted, pick
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import LongLine, numbered_lines, peeked, shown
from fmrt.errors import DataError


def read_txt(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the texts of ``source``, one a line; an empty line is the text ""."""
    if wanted.column is not None:
        raise DataError(f"{shown(source)} is plain text without columns; leave out --column")
    columns = pick(source, {TEXT: True}, wanted)
    lines = peeked(source, numbered_lines(source, wanted.choices, wanted.limits))
    return (_record(number, line, columns) for number, line in lines)


def _record(number: int, line: bytes, columns: Columns) -> Record | BadRecord:
    if isinstance(line, LongLine):
        return BadRecord(number, line.decode())
    try:
        text = _without_terminator(line).decode()
    except UnicodeDecodeError:
        return BadRecord(number, "not valid UTF-8")
    return columns.record(number, {TEXT: text}) if columns.keep else Record(number, text)


def _without_terminator(line: bytes) -> bytes:
    if line.endswith(b"\r\n"):
        return line[:-2]
    return line.removesuffix(b"\n")
