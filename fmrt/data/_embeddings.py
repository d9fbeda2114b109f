"""Reading back the vectors that a writer wrote."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data._jsonl_vectors import EXTENSION, read_jsonl_vectors
from fmrt.data._parquet_pages import largest_value
from fmrt.data._parquet_records import TEXT_TYPES, Unreadable, values_of
from fmrt.data._pyarrow import EMBEDDING, pyarrow, reading_parquet
from fmrt.data._source import check_source
from fmrt.data.index import read_index
from fmrt.data.provenance import read_provenance
from fmrt.data.shard import Shard
from fmrt.errors import DataError
from fmrt.limits import DEFAULT, megabytes
from fmrt.words import listed, one_line, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

Embeddings = tuple[NDArray[Any], dict[str, list[object]]]
_NUMBERS = "fiu"
_MATRIX = 2
# Of the vectors that are read at a time; and most bytes of a number of them.
_BATCH_ROWS, _BATCH_BYTES, _VALUE_BYTES = 1 << 16, 1 << 26, 4


def read_embeddings(path: str, *, columns: Sequence[str] = ()) -> Embeddings:
    """Return the vectors [n, dim] of ``path`` in their stored dtype, and the columns it has.

    Args:
        path: a .npy file, which is memory-mapped; a .parquet or .jsonl file with a column
            "embedding"; or a folder of shards, all of which are read into memory.
        columns: names of columns to return as lists of n; those that do not exist are left out.

    Raises:
        DataError: if ``path`` is not such a file.
        MissingExtraError: for parquet without pyarrow.
    """
    if Path(path).is_dir():
        return _read_folder(path, columns)
    check_source(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return _read_npy(path), {}
    if suffix == ".parquet":
        return _read_parquet(path, columns)
    if suffix == EXTENSION:
        found = read_provenance(path)
        return read_jsonl_vectors(path, columns, None if found is None else found["dtype"])
    raise DataError(f"cannot read vectors from {shown(path)}: give a .jsonl, .npy or .parquet file")


def _read_folder(folder: str, columns: Sequence[str]) -> Embeddings:
    parts = [_read_shard(folder, shard, columns) for shard in read_index(folder).shards]
    try:
        kept = {name: [v for _, found in parts for v in found[name]] for name in parts[0][1]}
        return np.concatenate([vectors for vectors, _ in parts]), kept
    except (ValueError, KeyError) as e:
        raise DataError(f"the shards in {shown(folder)} are not of one job: embed again") from e


def _read_shard(folder: str, shard: Shard, columns: Sequence[str]) -> Embeddings:
    if (damaged := shard.damage(Path(folder))) is not None:
        raise DataError(
            f"{damaged!r} of {shown(folder)} is not as it was written: the command that made the "
            "job computes it again"
        )
    vectors, kept = read_embeddings(str(Path(folder, shard.file)), columns=columns)
    if len(vectors) != shard.rows:
        raise DataError(f"{shard.file!r} of {shown(folder)} has not the {shard.rows} rows it had")
    return vectors, kept


def _read_npy(path: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"cannot read {shown(path)} as .npy: {one_line(e)}") from e
    if isinstance(array, np.ndarray) and array.ndim == _MATRIX + 1:
        raise _patches(path)
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != _MATRIX
        or array.dtype.kind not in _NUMBERS
    ):
        raise DataError(f"{shown(path)} is not an array of numbers [rows, dim]")
    return array


def _read_parquet(path: str, columns: Sequence[str]) -> Embeddings:
    with reading_parquet(path), pyarrow().parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if EMBEDDING not in names:
            raise DataError(f"{shown(path)} has no column {EMBEDDING!r}; it has {listed(names)}")
        found = [name for name in dict.fromkeys(columns) if name in names]
        return _vectors(path, file), {name: _column(path, name) for name in found}


def _vectors(path: str, file: parquet.ParquetFile) -> NDArray[Any]:
    """Return the vectors, filled in batch by batch: the file is never in memory twice."""
    out: NDArray[Any] | None = None
    done = 0
    rows = max(1, file.metadata.num_rows)
    row_bytes = _VALUE_BYTES * _values_of(file, EMBEDDING) // rows
    _check_total(path, row_bytes * rows)
    size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
    for group in range(file.num_row_groups):
        largest_value(path, file, group, {EMBEDDING}, DEFAULT)
        for batch in file.iter_batches(size, row_groups=[group], columns=[EMBEDDING]):
            vectors = _matrix(path, batch.column(EMBEDDING))
            if out is None:
                out = np.empty((file.metadata.num_rows, vectors.shape[1]), vectors.dtype)
            if vectors.shape[1] != out.shape[1]:
                raise _uneven(path)
            out[done : done + len(vectors)] = vectors
            done += len(vectors)
    return _no_vectors(path, file) if out is None else out


def _values_of(file: parquet.ParquetFile, name: str) -> int:
    """Numbers in a column's lists, as the file states: pyarrow reads no more of them."""
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(c.num_values for c in columns if c.path_in_schema.partition(".")[0] == name)


def _check_total(path: str, needed: int) -> None:
    """Raise if so many bytes are no file of this size."""
    most = DEFAULT.allowed(Path(path).stat().st_size)
    if needed > most:
        raise DataError(
            f"{shown(path)} would take {megabytes(needed)} of memory, and for a file of its size "
            f"the limit is {megabytes(most)}"
        )


def _matrix(path: str, column: pa.Array) -> NDArray[Any]:
    """Return a list column as [rows, dim]; ``DataError`` unless all lists are equally long."""
    _check_type(path, column.type)
    lengths = set(column.value_lengths().to_pylist())
    values = column.flatten()
    if len(lengths) != 1 or None in lengths or values.null_count:
        raise _uneven(path)
    matrix: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix


def _no_vectors(path: str, file: parquet.ParquetFile) -> NDArray[Any]:
    kind = file.schema_arrow.field(EMBEDDING).type
    _check_type(path, kind)
    # Not by to_pandas_dtype, which needs pandas in pyarrow before 26.
    empty: NDArray[Any] = pyarrow().array([], kind.value_type).to_numpy(zero_copy_only=False)
    return empty.reshape(0, max(0, getattr(kind, "list_size", 0)))


def _check_type(path: str, kind: pa.DataType) -> None:
    types = pyarrow().types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_list and types.is_fixed_size_list(kind.value_type):
        raise _patches(path)
    if not is_list or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise DataError(f"{EMBEDDING!r} of {shown(path)} is {kind}, not a list of numbers")


def _patches(path: str) -> DataError:
    return DataError(
        f"{shown(path)} holds vectors of patches, several an image; export the model without "
        "--output patch for one"
    )


def _uneven(path: str) -> DataError:
    return DataError(f"{EMBEDDING!r} of {shown(path)} has nulls or vectors of several lengths")


def _column(path: str, name: str) -> list[object]:
    """The values of a column; one that stands in many rows is in memory once."""
    found: list[object] = []
    size = 0
    arrow = pyarrow().parquet
    with arrow.ParquetFile(path) as plain:
        shared = [name] if str(plain.schema_arrow.field(name).type) in TEXT_TYPES else []
    with arrow.ParquetFile(path, read_dictionary=shared) as file:
        for group in range(file.num_row_groups):
            largest = largest_value(path, file, group, {name}, DEFAULT)
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))
            for batch in file.iter_batches(rows, row_groups=[group], columns=[name]):
                values = values_of(batch.column(name))
                size += sum(map(sys.getsizeof, {id(value): value for value in values}.values()))
                _check_total(path, size)
                if bad := next((v for v in values if isinstance(v, Unreadable)), None):
                    raise DataError(f"cannot read column {name!r} of {shown(path)}: {bad.reason}")
                found += values
    return found
