"""How an input is read, as one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fmrt.data._formats import read_records
from fmrt.data._records import Records
from fmrt.errors import OptionError
from fmrt.limits import Limits

ON_ERROR = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How an input is read, and what happens at a record that cannot be embedded.

    Attributes:
        format: txt, jsonl, csv, tsv or parquet; default what the extension says, txt for "-".
        column: the column to embed; default that named as the modality, "path" or "file_name", or
            the only column of strings.
        delimiter: a character between the fields of csv or tsv; default what the file shows.
        header: whether csv or tsv begins with the names of its columns.
        keep: columns to carry along; "line" is the record's number, "path" a file's.
        on_error: ``fail`` at a record that cannot be embedded, or ``skip`` it.

    Raises:
        OptionError: ``on_error`` or ``keep`` has a wrong value.
    """

    format: str | None = None
    column: str | None = None
    delimiter: str | None = None
    header: bool = True
    keep: Iterable[str] = ()
    on_error: str = "fail"

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise OptionError(f"on_error={self.on_error!r}; choose from: {', '.join(ON_ERROR)}")
        if isinstance(self.keep, str):
            raise OptionError(f"keep={self.keep!r} is one name; give a list of names")
        object.__setattr__(self, "keep", tuple(dict.fromkeys(self.keep)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to carry along, each once."""
        return tuple(self.keep)

    def records(self, source: str, modality: str, limits: Limits) -> Records:
        """The records of an input, as of `fmrt.data.read_records`."""
        return read_records(
            source,
            format=self.format,
            column=self.column,
            keep=self.columns,
            modality=modality,
            delimiter=self.delimiter,
            header=self.header,
            limits=limits,
        )


AS_IT_SAYS = Reading()
