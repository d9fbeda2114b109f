"""The records of an input on their way through the model, and the line of the one that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

from fmrt.data import BadRecord, Record
from fmrt.errors import InputError
from fmrt.words import STDIN, count, shown

_MOST_SHOWN = 10


class Input:
    """Passes usable records on; skips the others, or fails at the first.

    Args:
        source: The input, for messages.
        format: The format, as it was given, or None.
        paths: Whether strings are paths, relative to the table that holds them, if it is one.
        skip: Whether to go on after a bad record.
        table: Whether records come from a table, as not from a folder.

    Attributes:
        skipped: The number of bad records so far.
    """

    def __init__(
        self,
        source: str,
        format: str | None,  # noqa: A002  # named as the option is
        *,
        paths: bool,
        skip: bool,
        table: bool = True,
    ) -> None:
        kind = format or PurePath(source).suffix.lower().removeprefix(".")
        self._position = f"{shown(source)} {'row' if kind == 'parquet' else 'line'}"
        self._paths = paths
        self._base = Path() if source == STDIN else Path(source).parent
        # A folder's records hold their paths already, and their numbers say nothing.
        self._is_list = table
        self._skip = skip
        self._first_skipped: list[str] = []
        self.skipped = 0

    def usable(self, records: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """Yield the records that could be read.

        Raises:
            InputError: There is a bad record, and bad records are not skipped.
        """
        for record in records:
            if isinstance(record, BadRecord):
                self.reject(record, InputError(record.reason))
            else:
                yield record

    def raw(self, record: Record) -> str | bytes:
        """What to embed of a record."""
        if self._paths and isinstance(record.value, str) and self._is_list:
            return str(self._base / record.value)
        return record.value

    def reject(self, record: Record | BadRecord, error: InputError) -> None:
        """Skip a record that cannot be embedded.

        Raises:
            InputError: Bad records are not skipped.
        """
        line = f"{self._where(record)}: {error.reason}"
        if not self._skip:
            raise type(error)(line)
        self.skipped += 1
        if len(self._first_skipped) < _MOST_SHOWN:
            self._first_skipped.append(line)

    def report_skipped(self, warn: Callable[[str], None]) -> None:
        """Name the first skipped records, and say how many there are."""
        for line in self._first_skipped:
            warn(f"skipped {line}")
        if self.skipped:
            warn(f"skipped {count(self.skipped, 'record')} in all")

    def _where(self, record: Record | BadRecord) -> str:
        if not self._paths or isinstance(record, BadRecord) or isinstance(record.value, bytes):
            return f"{self._position} {record.number}"
        if self._is_list:
            return f"{self._position} {record.number}, {record.value!r}"
        return repr(record.value)
