"""Where a parquet file's columns are, as its footer states.

pyarrow is not asked for it: where it takes a column's part of the footer for wrong, it ends the
process, since no exception of C++ leaves those properties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from fmrt.data._thrift import STRUCT, CompactReader
from fmrt.errors import DataError
from fmrt.words import shown

if TYPE_CHECKING:
    from pyarrow import parquet

# The size of the footer, and the magic bytes after it.
SIZE, END = 4, 8
# Fields of the footer, of a row group, of a column's chunk, and of the chunk's own metadata.
ROW_GROUPS, COLUMNS, METADATA = 4, 1, 3
VALUES, DATA, DICTIONARY = 5, 9, 11


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column in a row group: how many values it has, and where its pages begin."""

    values: int
    place: int


def column_chunks(
    source: str, file: parquet.ParquetFile, wanted: set[int]
) -> list[dict[int, Chunk]]:
    """Return, for each row group of a file, the chunks of columns by their index.

    Args:
        source: The file.
        file: The same file, opened.
        wanted: The indices of the columns.

    Raises:
        DataError: The footer does not say so, or pyarrow reads another one out of the same bytes.
    """
    try:
        return _checked(source, file, wanted)
    except (IndexError, KeyError, ValueError, OSError) as e:
        raise DataError(
            f"cannot read {shown(source)} as parquet: its footer does not say where its columns "
            "are, or they are encrypted"
        ) from e


def _checked(source: str, file: parquet.ParquetFile, wanted: set[int]) -> list[dict[int, Chunk]]:
    with open(source, "rb") as stream:  # noqa: PTH123  # as pyarrow opens it
        reader = CompactReader(_footer(stream))
    groups = list(_row_groups(reader, len(file.schema), wanted))
    if (reader.place, len(groups)) != (file.metadata.serialized_size, file.num_row_groups):
        raise ValueError
    return groups


def _footer(stream: IO[bytes]) -> bytes:
    whole = stream.seek(0, 2)
    stream.seek(whole - END)
    size = int.from_bytes(stream.read(SIZE), "little")
    stream.seek(whole - END - size)
    return stream.read(size)


def _row_groups(reader: CompactReader, leaves: int, wanted: set[int]) -> Iterator[dict[int, Chunk]]:
    for number, kind in reader.fields():
        if number != ROW_GROUPS:
            reader.skip(kind)
            continue
        for one in reader.items(kind):
            yield _row_group(reader, one, leaves, wanted)


def _row_group(reader: CompactReader, kind: int, leaves: int, wanted: set[int]) -> dict[int, Chunk]:
    found: dict[int, Chunk] = {}
    columns = 0
    for number, own in _fields(reader, kind):
        if number != COLUMNS:
            reader.skip(own)
            continue
        for one in reader.items(own):
            if columns in wanted:
                found[columns] = _chunk(reader, one)
            else:
                reader.skip(one)
            columns += 1
    if columns != leaves:
        raise ValueError
    return found


def _chunk(reader: CompactReader, kind: int) -> Chunk:
    stated: dict[int, int] = {}
    for number, own in _fields(reader, kind):
        if number != METADATA:
            reader.skip(own)
            continue
        for name, its in _fields(reader, own):
            if name in (VALUES, DATA, DICTIONARY):
                stated[name] = reader.integer(its)
            else:
                reader.skip(its)
    place = stated[DATA]
    if 0 < stated.get(DICTIONARY, 0) < place:
        place = stated[DICTIONARY]
    return Chunk(stated[VALUES], place)


def _fields(reader: CompactReader, kind: int) -> Iterator[tuple[int, int]]:
    if kind != STRUCT:
        raise ValueError
    return reader.fields()
