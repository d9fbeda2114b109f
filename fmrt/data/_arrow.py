"""Arrow files as Hugging Face's data sets keep them on disk: streams of record batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.data._parquet_records import values_of
from fmrt.data._pyarrow import pyarrow, reading_parquet
from fmrt.data._records import BadRecord, Record
from fmrt.errors import DataError
from fmrt.words import shown

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 1 << 25


def arrow_columns(file: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DataError: It cannot be read as such.
        MissingExtraError: pyarrow is missing.
    """
    with reading_parquet(str(file)), pyarrow().memory_map(str(file)) as source:
        return list(pyarrow().ipc.open_stream(source).schema.names)


def stated_features(file: Path) -> dict[str, Any]:
    """Return what Hugging Face's library wrote into a parquet or Arrow file about its columns.

    Raises:
        DataError: It cannot be read as such.
        MissingExtraError: pyarrow is missing.
    """
    arrow = pyarrow()
    with reading_parquet(str(file)):
        if file.suffix == ".arrow":
            with arrow.memory_map(str(file)) as source:
                metadata = arrow.ipc.open_stream(source).schema.metadata
        else:
            metadata = arrow.parquet.read_schema(file).metadata
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def arrow_records(
    files: Sequence[Path], column: str, keep: Sequence[str]
) -> Iterator[Record | BadRecord]:
    """Yield the records of files of one form, batch by batch.

    Args:
        files: The files, in order; records are numbered from 1 through all of them.
        column: The column to embed: texts, bytes, or structs of bytes and path.
        keep: The columns to carry along.

    Raises:
        DataError: A file cannot be read as such, or lacks a column.
        MissingExtraError: pyarrow is missing.
    """
    number = 0
    for file in files:
        with reading_parquet(str(file)), pyarrow().memory_map(str(file)) as source:
            stream = pyarrow().ipc.open_stream(source)
            for name in (column, *keep):
                if name not in stream.schema.names:
                    raise DataError(f"{shown(str(file))} has no column {name!r}")
            for batch in chain.from_iterable(map(_slices, _sound(stream))):
                wanted = {name: values_of(batch.column(name)) for name in {column, *keep}}
                for i in range(batch.num_rows):
                    number += 1
                    row = {name: values[i] for name, values in wanted.items()}
                    yield _record(number, row, column, keep)


def _sound(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, each only if it says truly where its values are: Arrow reads beyond them."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows of a batch, as many at a time as may become objects of Python together."""
    rows = max(1, batch.num_rows * _BATCH_BYTES // max(1, batch.nbytes))
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _record(
    number: int, row: Mapping[str, object], column: str, keep: Sequence[str]
) -> Record | BadRecord:
    value = row[column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str | bytes):
        return BadRecord(number, f"{column!r} is {type(value).__name__}, neither text nor a file")
    return Record(number, value, {name: row[name] for name in keep})
