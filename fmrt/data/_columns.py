"""Which columns of an input are used, and the record they make of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType

from fmrt.data._records import BadRecord, Record
from fmrt.data._source import listed, shown
from fmrt.errors import DataError

TEXT = "text"
LINE = "line"
_KINDS: dict[type, str] = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    NoneType: "null",
    str: "a string",
}


def kind(value: object) -> str:
    """Return what ``value`` is, in JSON's words."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Columns:
    """The columns that are used of every row.

    Attributes:
        text: the column that holds the text.
        keep: the columns to carry along.
        numbered: whether "line" means the record's number, as no column has that name.
    """

    text: str
    keep: tuple[str, ...] = ()
    numbered: bool = True

    def record(self, number: int, row: Mapping[str, object]) -> Record | BadRecord:
        """Return the record of one row; kept columns that the row lacks are None."""
        if self.text not in row:
            return BadRecord(number, f"it has no {self.text!r}")
        text = row[self.text]
        if not isinstance(text, str):
            return BadRecord(number, f"{self.text!r} is {kind(text)}, not a string")
        kept = {name: row.get(name) for name in self.keep}
        if self.numbered and LINE in kept:
            kept[LINE] = number
        return Record(number, text, kept)


def pick(
    source: str, columns: Mapping[str, bool], column: str | None, keep: Sequence[str]
) -> Columns:
    """Return the columns to use.

    Args:
        source: the input, for messages.
        columns: the columns there are, and for each whether it holds strings.
        column: the one to embed; by default "text", or the only one that holds strings.
        keep: those to carry along; "line" is the record's number unless there is such a column.

    Raises:
        DataError: if a column is missing, or several could hold the text.
    """
    text = _text_column(source, columns, column)
    for name in keep:
        if name not in columns and name != LINE:
            raise DataError(
                f"{shown(source)} has no column {name!r} to keep; it has {listed(columns)}, "
                f"and {LINE!r} keeps the record's number"
            )
    return Columns(text, tuple(keep), LINE not in columns)


def _text_column(source: str, columns: Mapping[str, bool], column: str | None) -> str:
    strings = [name for name, holds_strings in columns.items() if holds_strings]
    if column is None and TEXT in columns:
        return TEXT
    if column is None and len(strings) == 1:
        return strings[0]
    if column is None:
        raise DataError(
            f"cannot tell which column of {shown(source)} holds the text: it has "
            f"{listed(columns)}; say which with --column"
        )
    if column not in columns:
        raise DataError(f"{shown(source)} has no column {column!r}; it has {listed(columns)}")
    return column
