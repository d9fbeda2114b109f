"""Sizes of a parquet file's pages, from their own headers, which pyarrow believes.

A page is decompressed as a whole, so a file of a few kilobytes may take gigabytes. The headers are
structs of Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from fmrt.errors import DataError
from fmrt.system.limits import HINT, Limits, megabytes
from fmrt.words import shown

if TYPE_CHECKING:
    from pyarrow import parquet

# Of an item's limit: a page, its values in Arrow, and these in Python are there at the same time.
PAGE_SHARE = 4
# Bytes of a header that are read at first, and at most: it may hold the least and largest value.
HEADER, MOST_HEADER = 1 << 12, 1 << 22
# Structs in structs: a header has three.
DEEPEST = 8
# Fields of a page's header: its sizes, and the kinds of pages, whose own first field is the number
# of values.
UNPACKED, PACKED, DATA, DICTIONARY, DATA_2 = 2, 3, 5, 7, 8
# Of a value in a list, however it is packed.
NESTED_VALUE = 16
# Types of the compact protocol.
TRUE, FALSE, BYTE, DOUBLE, BINARY, STRUCT = 1, 2, 3, 7, 8, 12


@dataclass(frozen=True)
class Page:
    """One page: bytes as they are and in the file, how many values, and whether a dictionary's."""

    unpacked: int
    packed: int
    values: int
    dictionary: bool

    @property
    def value_bytes(self) -> int:
        """About the bytes of a value; of a dictionary, what the largest may have."""
        return self.unpacked if self.dictionary else self.unpacked // max(1, self.values)


def largest_value(
    source: str, file: parquet.ParquetFile, group: int, names: set[str], limits: Limits
) -> int:
    """Bytes of about the largest value that a row group has in columns.

    Raises:
        DataError: A page would take too much memory, or has no header that can be read.
    """
    largest = 1
    most = Limits(max(1, limits.item_bytes // PAGE_SHARE))
    with open(source, "rb") as stream:  # noqa: PTH123  # as pyarrow opens it
        for index, column in _chunks(file, group, names):
            nested = file.schema.column(index).max_repetition_level > 0
            for page in _pages(source, stream, column):
                needed = max(page.unpacked, NESTED_VALUE * page.values * nested)
                if needed > most.allowed(page.packed):
                    raise DataError(
                        f"a page of column {column.path_in_schema!r} of {shown(source)} would take "
                        f"{megabytes(needed)} of memory, and the limit is "
                        f"{megabytes(most.allowed(page.packed))}; {HINT}"
                    )
                largest = max(largest, page.value_bytes)
    return largest


def _chunks(
    file: parquet.ParquetFile, group: int, names: set[str]
) -> Iterator[tuple[int, parquet.ColumnChunkMetaData]]:
    """The columns of a row group that have a name, or belong to one that has."""
    row_group = file.metadata.row_group(group)
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        path = column.path_in_schema
        if not column.num_values:  # it has no page, and says nothing of where one would be
            continue
        if path in names or any(path.startswith(f"{name}.") for name in names):
            yield index, column


def _pages(source: str, stream: IO[bytes], column: parquet.ColumnChunkMetaData) -> Iterator[Page]:
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < place:
        place = column.dictionary_page_offset
    end = place + column.total_compressed_size
    while place < end:
        page, size = _page(source, stream, place)
        yield page
        place += size + page.packed


def _page(source: str, stream: IO[bytes], place: int) -> tuple[Page, int]:
    """The page at a place, and the size of its header."""
    size = HEADER
    while size <= MOST_HEADER:
        try:
            stream.seek(place)
            reader = _Reader(stream.read(size))
            found = reader.struct()
            return _page_of(found), reader.place
        except IndexError:
            size *= 32
        except (KeyError, StopIteration, TypeError, ValueError, OSError):
            break
    raise DataError(f"cannot read {shown(source)} as parquet: a page has no header")


def _page_of(fields: dict[int, Any]) -> Page:
    kind = next(fields[name] for name in (DATA, DATA_2, DICTIONARY) if name in fields)
    page = Page(fields[UNPACKED], fields[PACKED], kind[1], DICTIONARY in fields)
    if min(page.unpacked, page.packed, page.values) < 0:
        raise ValueError
    return page


class _Reader:
    """Thrift's compact protocol, as far as page headers have it; IndexError where bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by their number."""
        if depth > DEEPEST:
            raise ValueError
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if kind < DOUBLE:
            return self._signed()
        if kind in (DOUBLE, BINARY):
            return self._pass_over(8 if kind == DOUBLE else self._number())
        if kind == STRUCT:
            return self.struct(depth + 1)
        raise ValueError  # no list, set or map is in a page's header

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
            if byte < 0x80:  # noqa: PLR2004  # another one follows
                return number
            if shift > 63:  # noqa: PLR2004  # bits
                raise ValueError

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)
