"""Plain text: one text per line."""

from __future__ import annotations

from collections.abc import Iterator

from fmrt.data._columns import TEXT, Columns, Wanted, pick
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import LongLine, numbered_lines, peeked
from fmrt.errors import DataError
from fmrt.words import shown


def read_txt(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the texts of ``source``, one per line; an empty line is the text "".

    Its only column is ``text``.
    """
    if wanted.column not in (None, TEXT):
        raise DataError(f"{shown(source)} is plain text without columns; leave out --column")
    columns = pick(source, {TEXT: True}, wanted)
    lines = numbered_lines(source, wanted.choices, wanted.limits)
    return _records(peeked(source, lines), columns)


def _records(lines: Iterator[tuple[int, bytes]], columns: Columns) -> Iterator[Record | BadRecord]:
    for number, line in lines:
        if isinstance(line, LongLine):
            yield BadRecord(number, line.decode())
            continue
        try:
            text = (line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")).decode()
        except UnicodeDecodeError:
            yield BadRecord(number, "not valid UTF-8")
            continue
        yield columns.record(number, {TEXT: text}) if columns.keep else Record(number, text)
