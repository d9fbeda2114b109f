"""Which columns of an input are used, and the record they make of a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import NoneType

from fmrt.data._records import BadRecord, Record
from fmrt.errors import DataError
from fmrt.system.limits import DEFAULT, Limits
from fmrt.words import listed, shown

TEXT = "text"
# Names of the column to embed when none is given, in this order, by what the model embeds.
_FILES = ("path", "file_name")
DEFAULTS = {
    "text": (TEXT, "image", "audio", *_FILES),
    "image": ("image", *_FILES, TEXT),
    "audio": ("audio", *_FILES, TEXT),
}
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
class Wanted:
    """What is asked of a table.

    Attributes:
        column: The column to embed; None for the one that the table shows.
        keep: The columns to carry along.
        delimiter: The character between fields of csv; None to look for it.
        header: Whether csv begins with the names of its columns.
        modality: The modality: text, image or audio. For text, bytes are texts, as some programs
            write them.
        limits: The limits of a record's memory.
        choices: A list that takes one line for each choice of the reader that the table does not
            state itself.
        seen: A list that takes the names of the table's columns.
    """

    column: str | None = None
    keep: tuple[str, ...] = ()
    delimiter: str | None = None
    header: bool = True
    modality: str = TEXT
    limits: Limits = DEFAULT
    choices: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns to embed, of which the first that there is counts."""
        return DEFAULTS[self.modality] if self.column is None else (self.column,)


def lookup(row: Mapping[str, object], name: str) -> object:
    """Return the value of a column, or of ``a.b`` inside the object ``a``.

    Raises:
        KeyError: There is no such column.
    """
    if name in row:
        return row[name]
    first, dot, rest = name.partition(".")
    inner = row.get(first)
    if not dot or not isinstance(inner, dict):
        raise KeyError(name)
    return lookup(inner, rest)


@dataclass(frozen=True)
class Columns:
    """The columns that are used of every row.

    Attributes:
        value: The column that holds what to embed.
        keep: The columns to carry along.
        numbered: Whether "line" means the record's number, as no column has that name.
    """

    value: str
    keep: tuple[str, ...] = ()
    numbered: bool = True

    def record(self, number: int, row: Mapping[str, object]) -> Record | BadRecord:
        """Return the record of one row; kept columns that the row lacks are None."""
        try:
            value = row[self.value] if self.value in row else lookup(row, self.value)
        except KeyError:
            return BadRecord(number, f"it has no {self.value!r}")
        if not isinstance(value, str | bytes):
            return BadRecord(number, f"{self.value!r} is {kind(value)}, not a string")
        if not self.keep:
            return Record(number, value)
        kept = {name: _kept(row, name) for name in self.keep}
        if self.numbered and LINE in kept:
            kept[LINE] = number
        return Record(number, value, kept)


def _kept(row: Mapping[str, object], name: str) -> object:
    try:
        return lookup(row, name)
    except KeyError:
        return None


def pick(
    source: str, columns: Mapping[str, bool], wanted: Wanted, inner: Collection[str] = ()
) -> Columns:
    """Return the columns to use.

    Args:
        source: The input, for messages.
        columns: The columns that there are, and for each whether it holds strings.
        wanted: The column to embed, by default the first of `DEFAULTS`, or the only one with
            strings; and those to keep: "line" is the record's number unless a column has that name.
        inner: The names of what is inside of columns, as ``a.b``.

    Raises:
        DataError: A column is missing, or several could hold the text.
    """
    wanted.seen.extend(columns)
    has = listed(columns) + (f", in which are {listed(inner)}" if inner else "")
    value = _value_column(source, columns, wanted, inner, has)
    for name in wanted.keep:
        if name not in columns and name not in inner and name != LINE:
            raise DataError(
                f"{shown(source)} has no column {name!r} to keep; it has {has}, "
                f"and {LINE!r} keeps the record's number"
            )
    return Columns(value, wanted.keep, LINE not in columns)


def _value_column(
    source: str, columns: Mapping[str, bool], wanted: Wanted, inner: Collection[str], has: str
) -> str:
    column = wanted.column
    if column is not None:
        if column not in columns and column not in inner:
            raise DataError(f"{shown(source)} has no column {column!r}; it has {has}")
        return column
    found = [name for name in wanted.names if name in columns]
    if found:
        if wanted.modality == TEXT and found[0] != TEXT:
            wanted.choices.append(f"the texts of its column {found[0]!r} are embedded")
        return found[0]
    strings = [name for name, holds_strings in columns.items() if holds_strings]
    if len(strings) == 1:
        return strings[0]
    raise DataError(
        f"cannot tell which column of {shown(source)} to embed: it has {has}; say "
        "which with --column"
    )
