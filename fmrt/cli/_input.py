"""The records of an input on their way through the model, and the line of the one that fails."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from fmrt.cli._text import count
from fmrt.data import BadRecord, Record
from fmrt.data._source import shown
from fmrt.errors import InputError
from fmrt.preprocess.text import check_text

_MOST_SHOWN = 10


class Input:
    """Passes usable records on; skips the others, or fails at the first.

    Args:
        source: the input, for messages.
        format: as ``--format`` gives it, or None.
        skip: whether to go on after a bad record.

    Attributes:
        skipped: bad records so far.
        embedded: records that have come back from the model.
    """

    def __init__(self, source: str, format: str | None, *, skip: bool) -> None:  # noqa: A002
        kind = format or PurePath(source).suffix.lower().removeprefix(".")
        self._position = f"{shown(source)} {'row' if kind == 'parquet' else 'line'}"
        self._skip = skip
        self._first_skipped: list[str] = []
        self._in_flight: deque[int] = deque()
        self.skipped = 0
        self.embedded = 0

    def usable(self, records: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """Yield the records whose text a model may see.

        Raises:
            InputError: there is one without, and bad records are not skipped.
        """
        for record in records:
            if isinstance(record, BadRecord):
                self._reject(record.number, record.reason)
            elif reason := _problem(record.text):
                self._reject(record.number, reason)
            else:
                self._in_flight.append(record.number)
                yield record

    def done(self, records: Iterable[Record]) -> None:
        """Take note that the next ``records`` of the stream are embedded."""
        for _ in records:
            self._in_flight.popleft()
            self.embedded += 1

    def located(self, error: InputError) -> InputError:
        """Return an error about an item of the stream with its line in place of its index."""
        if error.index is None:
            return error
        number = self._in_flight[error.index - self.embedded]
        return type(error)(f"{self._position} {number}: {error.reason}")

    def report_skipped(self) -> None:
        """Name the first skipped records on standard error, and say how many there are."""
        for line in self._first_skipped:
            print(f"fmrt: skipped {line}", file=sys.stderr)
        if self.skipped:
            print(f"fmrt: skipped {count(self.skipped, 'record')} in all", file=sys.stderr)

    def _reject(self, number: int, reason: str) -> None:
        line = f"{self._position} {number}: {reason}"
        if not self._skip:
            raise InputError(line)
        self.skipped += 1
        if len(self._first_skipped) < _MOST_SHOWN:
            self._first_skipped.append(line)


def _problem(text: str) -> str | None:
    try:
        check_text(text)
    except InputError as e:
        return e.reason
    return None
