"""Structs of Thrift's compact protocol, which parquet's headers and footer are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Structs in structs: a footer has six.
DEEPEST = 8
# A field's number has 16 bits.
MOST_NUMBER = 0x7FFF
# Types of values.
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
INTEGERS = (4, 5, 6)


class CompactReader:
    """Reads values one after the other.

    IndexError where the bytes end, ValueError where they are not of the protocol.

    Args:
        data: The bytes.
        place: The place in the bytes at which to begin.
    """

    def __init__(self, data: bytes, place: int = 0) -> None:
        self._data = data
        self.place = place
        self._depth = 0

    def struct(self) -> dict[int, Any]:
        """The fields of a struct by their number, without its lists, maps and strings."""
        return {number: self._value(kind) for number, kind in self.fields()}

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads its value, or skips it.

        A field that comes twice is refused, since readers disagree on which one counts.
        """
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError
        number, seen = 0, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            if not 0 <= number <= MOST_NUMBER or seen >> number & 1:
                raise ValueError
            seen |= 1 << number
            yield number, head & 15
        self._depth -= 1

    def integer(self, kind: int) -> int:
        """A whole number, if the type is one of these."""
        if kind not in INTEGERS:
            raise ValueError
        return self.signed()

    def items(self, kind: int) -> Iterator[int]:
        """The type of each value of a list, which the caller reads or skips."""
        if kind not in (LIST, SET):
            raise ValueError
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._number()  # it does not fit
        for _ in range(size):
            yield head & 15

    def skip(self, kind: int) -> None:
        """Pass over a value."""
        if kind in (LIST, SET):
            for own in self.items(kind):
                self._skip_item(own)
        elif kind == MAP:
            size = self._number()
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._skip_item(kinds >> 4)
                self._skip_item(kinds & 15)
        elif kind == STRUCT:
            for _, own in self.fields():
                self.skip(own)
        else:
            self._value(kind)

    def signed(self) -> int:
        """A whole number, whatever its type."""
        number = self._number()
        return (number >> 1) ^ -(number & 1)

    def _skip_item(self, kind: int) -> None:
        """Pass over a value that is no field: a truth value then has a byte of its own."""
        self.skip(BYTE if kind in (TRUE, FALSE) else kind)

    def _value(self, kind: int) -> Any:  # noqa: ANN401
        if kind in INTEGERS:
            return self.signed()
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if kind in (DOUBLE, BINARY):
            return self._pass_over(8 if kind == DOUBLE else self._number())
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET, MAP):
            return self.skip(kind)
        raise ValueError

    def _pass_over(self, size: int) -> None:
        if self.place + size > len(self._data):
            raise IndexError
        self.place += size

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # another one follows
                return number
            if shift > 63:  # bits
                raise ValueError
