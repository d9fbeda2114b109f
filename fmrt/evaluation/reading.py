"""Bad records of a data set. They are an error, or they are left out and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fmrt.data import BadRecord, Record
from fmrt.errors import InputError
from fmrt.evaluation.settings import SKIP
from fmrt.words import shown

_MOST_SHOWN = 10
HINT = "mend it, or leave such ones out with --on-error skip"


class Reading:
    """Takes the records that cannot be used.

    Attributes:
        skipped: The number of records that were left out.
    """

    def __init__(self, on_error: str) -> None:
        self._skip = on_error == SKIP
        self._lines: list[str] = []
        self.skipped = 0

    def good(self, source: str, records: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """The records that could be read.

        Raises:
            InputError: A record could not be read, and bad records are not left out.
        """
        for record in records:
            if isinstance(record, BadRecord):
                self.bad(source, record)
            else:
                yield record

    def bad(self, source: str, record: BadRecord) -> None:
        """Leave a record out.

        Raises:
            InputError: Bad records are not left out.
        """
        self.left_out(f"{shown(source)}, record {record.number}", record.reason)

    def left_out(self, place: str, reason: str) -> None:
        """Leave out the item at a place.

        Raises:
            InputError: Bad items are not left out.
        """
        if not self._skip:
            raise InputError(f"{place}: {reason}; {HINT}")
        self.skipped += 1
        if len(self._lines) < _MOST_SHOWN:
            self._lines.append(f"left out {place}: {reason}")

    def notes(self) -> tuple[str, ...]:
        """One line for each of the first records that were left out, and one for their number."""
        total = [f"left out {self.skipped:,} in all"] if self.skipped else []
        return (*self._lines, *total)
