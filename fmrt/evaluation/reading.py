"""Bad records of a data set: an error, or left out and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fmrt.data import BadRecord, Record
from fmrt.errors import InputError
from fmrt.evaluation.settings import SKIP
from fmrt.words import shown

_MOST_SHOWN = 10
HINT = "mend it, or leave such ones out with --on-error skip"


class Reading:
    """Takes what cannot be used.

    Attributes:
        skipped: how many were left out.
    """

    def __init__(self, on_error: str) -> None:
        self._skip = on_error == SKIP
        self._lines: list[str] = []
        self.skipped = 0

    def good(self, source: str, records: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """The records that could be read.

        Raises:
            InputError: there is another, and such ones are not left out.
        """
        for record in records:
            if isinstance(record, BadRecord):
                self.bad(source, record)
            else:
                yield record

    def bad(self, source: str, record: BadRecord) -> None:
        """Leave a record out.

        Raises:
            InputError: such ones are not left out.
        """
        self.left_out(f"{shown(source)}, record {record.number}", record.reason)

    def left_out(self, place: str, reason: str) -> None:
        """Leave out what is at a place.

        Raises:
            InputError: such ones are not left out.
        """
        if not self._skip:
            raise InputError(f"{place}: {reason}; {HINT}")
        self.skipped += 1
        if len(self._lines) < _MOST_SHOWN:
            self._lines.append(f"left out {place}: {reason}")

    def notes(self) -> tuple[str, ...]:
        """A line for each of the first that were left out, and how many there are."""
        total = [f"left out {self.skipped:,} in all"] if self.skipped else []
        return (*self._lines, *total)
