"""How an input is read, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmrt.data._formats import read_records
from fmrt.data._records import Records
from fmrt.errors import OptionError, quoted
from fmrt.options import checked, text
from fmrt.system.limits import Limits

ON_ERROR = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How an input is read, and what happens at a record that cannot be embedded.

    Attributes:
        format: The format: txt, jsonl, csv, tsv or parquet; default what the extension says, txt
            for "-".
        column: The column to embed; default that named as the modality, "path" or "file_name", or
            the only column of strings.
        delimiter: A character between the fields of csv or tsv; default what the file shows.
        header: Whether csv or tsv begins with the names of its columns.
        keep: The columns to carry along; "line" is the record's number, "path" a file's.
        on_error: What happens at a record that cannot be embedded: ``fail``, or ``skip`` it.

    Raises:
        OptionError: One of these has a wrong value.
    """

    format: str | None = None
    column: str | None = None
    delimiter: str | None = None
    header: bool = True
    keep: Sequence[str] = ()
    on_error: str = "fail"

    def __post_init__(self) -> None:
        checked(format=self.format, column=self.column, delimiter=self.delimiter)
        checked(header=self.header)
        if not isinstance(self.on_error, str) or self.on_error not in ON_ERROR:
            choices = ", ".join(ON_ERROR)
            raise OptionError(f"on_error={quoted(self.on_error)}; choose from: {choices}")
        if not isinstance(self.keep, list | tuple):
            raise OptionError(f"keep={quoted(self.keep)}; give a list of names")
        names = [text("keep", name) for name in self.keep]
        object.__setattr__(self, "keep", tuple(dict.fromkeys(names)))

    def records(self, source: str, modality: str, limits: Limits) -> Records:
        """The records of an input, as `fmrt.data.read_records` gives them."""
        return read_records(
            source,
            format=self.format,
            column=self.column,
            keep=self.keep,
            modality=modality,
            delimiter=self.delimiter,
            header=self.header,
            limits=limits,
        )


def as_reading(value: object) -> Reading:
    """A value that is how to read.

    Raises:
        OptionError: The value is no `Reading`.
    """
    if not isinstance(value, Reading):
        raise OptionError(f"reading={quoted(value)}; give a Reading")
    return value


AS_IT_SAYS = Reading()
