"""JSON values one after the other, or in one array, over as many lines as they take."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fmrt.data._source import line_problem
from fmrt.errors import DataError
from fmrt.system.limits import Limits
from fmrt.words import shown

# The limit of one value. It is far above any record, yet a bracket that is never closed does not
# read a whole file.
MOST_CHARACTERS = 1 << 24
# An error so far before the end of what was read is none that more lines would mend.
_CERTAIN = 64
_OPEN_STRINGS = ("Unterminated string", "Invalid \\escape", "Invalid \\u")


def values(
    source: str, lines: Iterator[tuple[int, bytes]], limits: Limits
) -> Iterator[tuple[int, object]]:
    """Yield each value with the line that it starts on.

    Args:
        source: The input, for messages.
        lines: The lines of the input with their numbers.
        limits: The limits of the memory of a line's values.

    Raises:
        DataError: It is no JSON, from there on.
    """
    text = _Text(source, lines, limits)
    array = text.next() == "["
    if array:
        text.place += 1
    first = True
    while (character := text.next()) and not (array and character == "]" and text.skip()):
        if array and not first:
            if character != ",":
                raise text.error("a comma is missing between two values")
            text.place += 1
            if text.next() == "]":
                raise text.error("a comma too many before the end of the array")
        first = False
        yield text.value()
    if array and not text.closed:
        raise text.error("the array is not closed")
    if text.next():
        raise text.error("there is more after the end of the array")


class _Text:
    """What was read and not used yet, a few values at most."""

    def __init__(self, source: str, lines: Iterator[tuple[int, bytes]], limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._lines = lines
        self._buffer = ""
        self._line = 1  # of ``_counted``
        self._counted = 0
        self._decoder = json.JSONDecoder()
        self.place = 0
        self.closed = False

    def next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            while self.place < len(self._buffer):
                if not self._buffer[self.place].isspace():
                    return self._buffer[self.place]
                self.place += 1
            if not self._read(1):
                return ""

    def skip(self) -> bool:
        """Go after the end of the array."""
        self.place += 1
        self.closed = True
        return True

    def value(self) -> tuple[int, object]:
        """The next value, with its line."""
        self.next()
        more = 1
        while True:
            try:
                found, end = self._decoder.raw_decode(self._buffer, self.place)
            except json.JSONDecodeError as e:
                if self._is_certain(e) or not self._read(more):
                    self.place = e.pos
                    raise self.error(e.msg) from None
                more *= 2
                continue
            except (ValueError, RecursionError) as e:
                raise self.error(" ".join(str(e).split())) from None
            line = self._at()
            self.place = end
            return line, found

    def error(self, reason: str) -> DataError:
        """That something is wrong at this place."""
        return DataError(f"{shown(self._source)} line {self._at()}: not valid JSON: {reason}")

    def _is_certain(self, error: json.JSONDecodeError) -> bool:
        if len(self._buffer) - self.place > MOST_CHARACTERS:
            return True
        left = self._buffer[error.pos :].strip()
        return len(left) > _CERTAIN and not error.msg.startswith(_OPEN_STRINGS)

    def _at(self) -> int:
        self._line += self._buffer.count("\n", self._counted, self.place)
        self._counted = max(self._counted, self.place)
        return self._line

    def _read(self, most: int) -> bool:
        """Read up to ``most`` lines; whether there was one."""
        self._at()
        self._buffer = self._buffer[self.place :]
        self._counted = self.place = 0
        parts = [self._buffer]
        for number, line in self._lines:
            if problem := line_problem(line, self._limits):
                raise DataError(f"{shown(self._source)} line {number}: {problem}")
            try:
                parts.append(line.decode())
            except UnicodeDecodeError:
                raise DataError(f"{shown(self._source)} line {number}: not valid UTF-8") from None
            most -= 1
            if not most:
                break
        self._buffer = "".join(parts)
        return len(parts) > 1
