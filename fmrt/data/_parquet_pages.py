"""Sizes of a parquet file's pages, from their own headers, which pyarrow believes.

A page is decompressed as a whole, so a file of a few kilobytes may take gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from fmrt.data._parquet_footer import Chunk, column_chunks
from fmrt.data._thrift import CompactReader
from fmrt.errors import DataError
from fmrt.system.limits import HINT, Limits, megabytes
from fmrt.words import shown

if TYPE_CHECKING:
    from pyarrow import parquet

# A page may take an item's limit divided by this: the page, its values in Arrow, and these in
# Python are there at the same time.
PAGE_SHARE = 4
# Bytes of a header that are read at first, and at most: it may hold the least and largest value.
HEADER, MOST_HEADER = 1 << 12, 1 << 22
# Fields of a page's header: its sizes, and the kinds of pages, whose own first field is the number
# of values.
UNPACKED, PACKED, DATA, DICTIONARY, DATA_2 = 2, 3, 5, 7, 8
# The bits of a value in a list, however it is packed.
NESTED_VALUE = 16


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


class PageSizes:
    """The sizes of the pages of some columns of a file.

    Args:
        source: The file.
        file: The same file, opened.
        names: The columns; of a struct, all that are in it.
        limits: What one of their values may take in memory.

    Raises:
        DataError: The file's footer does not say where the columns are.
    """

    def __init__(
        self, source: str, file: parquet.ParquetFile, names: set[str], limits: Limits
    ) -> None:
        self._source = source
        self._most = Limits(max(1, limits.item_bytes // PAGE_SHARE))
        columns = [file.schema.column(i) for i in range(len(file.schema))]
        self._columns = {
            index: column
            for index, column in enumerate(columns)
            if any(column.path == name or column.path.startswith(f"{name}.") for name in names)
        }
        self._groups = column_chunks(source, file, set(self._columns))

    @property
    def values(self) -> int:
        """How many values the columns have, as the footer states: pyarrow reads no more of them."""
        return sum(chunk.values for group in self._groups for chunk in group.values())

    def largest_value(self, group: int, shared: Collection[str] = (), most: int = 0) -> int:
        """Bytes of about the largest value that a row group has in the columns.

        Args:
            group: The row group.
            shared: The columns of which a value is in memory once, in however many rows it stands.
            most: The bytes of a dictionary of these whose values may be there all at once.

        Raises:
            DataError: A page would take too much memory, or has no header that can be read.
        """
        largest = 1
        with open(self._source, "rb") as stream:  # noqa: PTH123  # as pyarrow opens it
            for index, chunk in self._groups[group].items():
                for page in _pages(self._source, stream, chunk):
                    self._check(page, self._columns[index])
                    once = page.dictionary and self._columns[index].path in shared
                    if not once or page.unpacked > most:
                        largest = max(largest, page.value_bytes)
        return largest

    def _check(self, page: Page, column: parquet.ColumnSchema) -> None:
        nested = column.max_repetition_level > 0
        needed = max(page.unpacked, NESTED_VALUE * page.values * nested)
        if needed > self._most.allowed(page.packed):
            raise DataError(
                f"a page of column {column.path!r} of {shown(self._source)} would take "
                f"{megabytes(needed)} of memory, and the limit is "
                f"{megabytes(self._most.allowed(page.packed))}; {HINT}"
            )


def _pages(source: str, stream: IO[bytes], chunk: Chunk) -> Iterator[Page]:
    place, values = chunk.place, 0
    while values < chunk.values:  # as pyarrow reads: the stated size does not end it always
        page, size = _page(source, stream, place)
        yield page
        place += size + page.packed
        values += 0 if page.dictionary else page.values


def _page(source: str, stream: IO[bytes], place: int) -> tuple[Page, int]:
    """The page at a place, and the size of its header."""
    size = HEADER
    while size <= MOST_HEADER:
        try:
            stream.seek(place)
            reader = CompactReader(stream.read(size))
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
