"""Which columns of an input are used, and the record they make of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType

from fmrt.data._records import BadRecord, Record
from fmrt.data._source import listed, shown
from fmrt.errors import DataError

TEXT = "text"
# Names of the column to embed when none is given, in this order.
DEFAULTS = (TEXT, "image", "audio", "path", "file_name")
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
        value: the column that holds what to embed.
        keep: the columns to carry along.
        numbered: whether "line" means the record's number, as no column has that name.
    """

    value: str
    keep: tuple[str, ...] = ()
    numbered: bool = True

    def record(self, number: int, row: Mapping[str, object]) -> Record | BadRecord:
        """Return the record of one row; kept columns that the row lacks are None."""
        if self.value not in row:
            return BadRecord(number, f"it has no {self.value!r}")
        value = row[self.value]
        if not isinstance(value, str | bytes):
            return BadRecord(number, f"{self.value!r} is {kind(value)}, not a string")
        if not self.keep:
            return Record(number, value)
        kept = {name: row.get(name) for name in self.keep}
        if self.numbered and LINE in kept:
            kept[LINE] = number
        return Record(number, value, kept)


def pick(
    source: str, columns: Mapping[str, bool], column: str | None, keep: Sequence[str]
) -> Columns:
    """Return the columns to use.

    Args:
        source: the input, for messages.
        columns: the columns there are, and for each whether it holds strings.
        column: the one to embed; by default the first of `DEFAULTS`, or the only one with strings.
        keep: those to carry along; "line" is the record's number unless there is such a column.

    Raises:
        DataError: if a column is missing, or several could hold the text.
    """
    value = _value_column(source, columns, column)
    for name in keep:
        if name not in columns and name != LINE:
            raise DataError(
                f"{shown(source)} has no column {name!r} to keep; it has {listed(columns)}, "
                f"and {LINE!r} keeps the record's number"
            )
    return Columns(value, tuple(keep), LINE not in columns)


def _value_column(source: str, columns: Mapping[str, bool], column: str | None) -> str:
    if column is not None:
        if column not in columns:
            raise DataError(f"{shown(source)} has no column {column!r}; it has {listed(columns)}")
        return column
    for name in DEFAULTS:
        if name in columns:
            return name
    strings = [name for name, holds_strings in columns.items() if holds_strings]
    if len(strings) == 1:
        return strings[0]
    raise DataError(
        f"cannot tell which column of {shown(source)} to embed: it has {listed(columns)}; say "
        "which with --column"
    )
