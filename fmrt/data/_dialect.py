"""What a CSV file does not say of itself: what separates fields, and whether there is a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fmrt.data._columns import DEFAULTS, TEXT, Wanted
from fmrt.errors import DataError
from fmrt.words import shown

DELIMITERS = (",", ";", "\t", "|")
# Lines and bytes of a file that are looked at, at most.
HEAD_LINES, HEAD_BYTES = 200, 1 << 18
# The part of the rows that must have the header's number of fields.
_MOST = 0.5
# Excel's first line, which says what separates fields.
_SEP = re.compile(r'("?)sep=(.)\1[\r\n]*', re.IGNORECASE)
# A field in quotes, which may go on in the next line.
_QUOTED = re.compile(r'"[^"]*(?:"|\Z)')
# What people call a column of texts. Another single name may as well be the first text.
_USUAL = frozenset(
    (
        *DEFAULTS[TEXT], "abstract", "answer", "article", "body", "caption", "comment", "content",
        "contents", "context", "data", "description", "doc", "document", "documents", "filename",
        "file", "img", "input", "label", "message", "name", "paragraph", "passage", "phrase",
        "post", "product", "prompt", "query", "question", "review", "sentence", "sentences",
        "string", "summary", "texts", "title", "tweet", "url", "utterance", "word", "words",
    )
)  # fmt: skip


def needs_next(line: bytes) -> bool:
    """Whether `separator` needs the line after this first one."""
    found = _SEP.fullmatch(line.decode(errors="replace"))
    return found is not None and bool(found[1])


def separator(source: str, line: str, following: str, named: str | None) -> str | None:
    """Return the delimiter that Excel's ``sep=`` line states; None for any other line.

    In quotes, that may be a column's name or a text too. It counts only where the line after it has
    the delimiter outside of quotes.

    Args:
        source: The input, for messages.
        line: The first line of the input.
        following: The line after that.
        named: The delimiter that a user names.

    Raises:
        DataError: The line states another delimiter than the user does.
    """
    found = _SEP.fullmatch(line)
    if found is None:
        return None
    quoted, stated = found[1], found[2]
    if quoted:
        outside = _QUOTED.sub("", following)
        return stated if stated in outside and named in (None, stated) else None
    if named not in (None, stated):
        raise DataError(
            f"the first line of {shown(source)} says that {stated!r} separates its fields, "
            f"--delimiter says {named!r}; leave --delimiter out, or remove the line"
        )
    return stated


@dataclass(frozen=True)
class _Reading:
    """What a delimiter makes of a file's first rows."""

    delimiter: str
    header: list[str]
    alike: float


def delimiter_of(source: str, lines: Sequence[str], usual: str, wanted: Wanted) -> str:
    """Return what separates the fields of a file.

    Args:
        source: The input, for messages.
        lines: The first lines of the input.
        usual: The usual delimiter of the format.
        wanted: The column that is asked for; a delimiter that was chosen is noted there.

    Raises:
        DataError: Several are as likely, or the usual one leaves one column that another would cut.
    """
    readings = [_read(lines, delimiter) for delimiter in DELIMITERS]
    likely = [r for r in readings if len(r.header) > 1 and r.alike >= _MOST]
    best = [r for r in likely if r.alike == max(other.alike for other in likely)]
    names = wanted.names
    if len(best) > 1:
        best = [r for r in best if set(names) & set(r.header)] or best
    if len(best) > 1:
        found = " or ".join(repr(r.delimiter) for r in best)
        raise DataError(f"cannot tell whether {found} separates the fields of {shown(source)}; "
                        "say which with --delimiter")  # fmt: skip
    if best and best[0].delimiter != usual:
        wanted.choices.append(f"its fields are separated by {best[0].delimiter!r}")
    if not best:
        _check_single(source, readings, usual, names)
    return best[0].delimiter if best else usual


def _check_single(
    source: str, readings: Sequence[_Reading], usual: str, names: Sequence[str]
) -> None:
    """Refuse a single column whose name another delimiter would cut."""
    header = next((r.header for r in readings if r.delimiter == usual), [])
    cut = [r.delimiter for r in readings if r.delimiter != usual and len(r.header) > 1]
    if len(header) == 1 and cut and header[0] not in names:
        raise DataError(
            f"{shown(source)} has one column {header[0]!r}: is the delimiter {cut[0]!r}? Say it "
            f"with --delimiter, which is {usual!r} otherwise"
        )


def _read(lines: Sequence[str], delimiter: str) -> _Reading:
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the last row may be cut, with what was read of the file
        rows += filter(None, csv.reader(lines, delimiter=delimiter, strict=True))
    if not rows:
        return _Reading(delimiter, [], 0.0)
    others = rows[1:] or rows
    return _Reading(delimiter, rows[0], sum(len(r) == len(rows[0]) for r in others) / len(others))


def check_header(source: str, header: Sequence[str], wanted: Wanted) -> None:
    """Refuse a single column whose name may be a text.

    Raises:
        DataError: The name may be a text.
    """
    name = header[0].strip().casefold()
    if len(header) > 1 or wanted.column is not None or name in wanted.names:
        return
    if name in _USUAL:
        wanted.choices.append(f"its first line, {header[0]!r}, is taken for its column's name")
        return
    raise DataError(
        f"the first line of {shown(source)} is {header[0]!r:.80}: if that is the name of its "
        "column, say --column with it; if it is a text, --no-header"
    )
