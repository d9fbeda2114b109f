"""Vectors and the columns carried along, in a parquet file in row groups."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data._columnar import array_of
from fmrt.data._output_format import (
    EMBEDDING,
    Embeddings,
    FileWriter,
    Form,
    OutputFormat,
    Stated,
    patches,
)
from fmrt.data._parquet_pages import PageSizes
from fmrt.data._parquet_records import TEXT_TYPES, Unreadable, values_of
from fmrt.data._pyarrow import pyarrow, reading_parquet
from fmrt.data._records import cell_bytes
from fmrt.errors import DataError
from fmrt.system.limits import DEFAULT, megabytes
from fmrt.system.whole_file import writing
from fmrt.words import listed, one_line, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_GROUP_BYTES = 1 << 24
_GROUP_ROWS = 1 << 14
# Most rows and bytes of the vectors that are read at a time; and most bytes of a number.
_BATCH_ROWS, _BATCH_BYTES, _VALUE_BYTES = 1 << 16, 1 << 26, 4
# In the metadata of the schema.
_KEY = b"fmrt"


class ParquetWriter(FileWriter):
    """Writes the kept columns, then the vectors as fixed_size_list<dtype>[dim].

    Vectors of patches are a fixed_size_list of those.

    A kept column has the type that it has in the form's ``like``, another such file; by default the
    type that pyarrow infers from its first row group, or of strings if it has no value there.
    """

    def __init__(self, output: str, form: Form) -> None:
        self._arrow = pyarrow()
        self._clear()
        self._schema: pa.Schema | None = None
        if form.like is not None:
            with reading_parquet(form.like):
                self._schema = self._arrow.parquet.read_schema(form.like)
        self._parquet: parquet.ParquetWriter | None = None
        super().__init__(output, form)

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape] with the n rows they belong to."""
        self._form.check(vectors, len(kept))
        self._vectors.append(vectors.copy())  # the caller may use the memory again
        self._rows.extend(kept)
        self._bytes += vectors.nbytes + sum(map(cell_bytes, kept))
        if self._bytes >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def _finish(self) -> None:
        """Write what is left and the footer."""
        if self._rows or self._parquet is None:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        if self._parquet is not None:
            with suppress(OSError, ValueError, self._arrow.ArrowException):
                self._parquet.close()
        super().abort()

    def _clear(self) -> None:
        self._vectors: list[NDArray[Any]] = []
        self._rows: list[Mapping[str, object]] = []
        self._bytes = 0

    def _flush(self) -> None:
        schema = self._schema
        arrays = [
            self._column(name, schema.field(name).type if schema else None)
            for name in self._form.keep
        ]
        table = self._arrow.table([*arrays, self._embedding()], names=[*self._form.keep, EMBEDDING])
        with writing(self._pending.output):
            self._write(table.replace_schema_metadata(_metadata(self._form)))
        self._clear()

    def _write(self, table: pa.Table) -> None:
        try:
            self._schema = table.schema
            self._parquet = self._parquet or self._open(table.schema)
            self._parquet.write_table(table, row_group_size=_GROUP_ROWS)
        except self._arrow.ArrowNotImplementedError as e:
            raise DataError(f"parquet cannot hold a kept column: {one_line(e)}") from e

    def _open(self, schema: pa.Schema) -> parquet.ParquetWriter:
        # A dictionary of float vectors only costs time: no two components are alike.
        return self._arrow.parquet.ParquetWriter(
            self._pending.file, schema, use_dictionary=list(self._form.keep), version="2.6"
        )

    def _embedding(self) -> pa.Array:
        vectors = np.concatenate(
            [np.empty((0, *self._form.shape), self._form.dtype), *self._vectors]
        )
        values = self._arrow.array(vectors.reshape(-1))
        for size in reversed(self._form.shape):
            values = self._arrow.FixedSizeListArray.from_arrays(values, size)
        return values

    def _column(self, name: str, kind: pa.DataType | None) -> pa.Array:
        values = [row.get(name) for row in self._rows]
        try:
            return array_of(values, kind)
        except (self._arrow.ArrowException, ValueError, TypeError, OverflowError) as e:
            raise DataError(
                f"a value does not fit the kept column {name!r}: {one_line(e)}; make its values "
                "alike or do not keep it"
            ) from e


def _metadata(form: Form) -> dict[bytes, bytes] | None:
    return None if form.provenance is None else {_KEY: json.dumps(form.provenance).encode()}


def _provenance(path: str) -> bytes | None:
    with reading_parquet(path):
        found: bytes | None = (pyarrow().parquet.read_schema(path).metadata or {}).get(_KEY)
    return found


def _read(path: str, columns: Sequence[str], _: Stated) -> Embeddings:
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
    sizes = PageSizes(path, file, {EMBEDDING}, DEFAULT)
    row_bytes = _VALUE_BYTES * sizes.values // rows
    _check_total(path, row_bytes * rows)
    size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
    for group in range(file.num_row_groups):
        sizes.largest_value(group)
        for batch in file.iter_batches(size, row_groups=[group], columns=[EMBEDDING]):
            vectors = _matrix(path, batch.column(EMBEDDING))
            if out is None:
                out = np.empty((file.metadata.num_rows, vectors.shape[1]), vectors.dtype)
            if vectors.shape[1] != out.shape[1]:
                raise _uneven(path)
            out[done : done + len(vectors)] = vectors
            done += len(vectors)
    return _no_vectors(path, file) if out is None else out


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
        raise patches(path)
    if not is_list or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise DataError(f"{EMBEDDING!r} of {shown(path)} is {kind}, not a list of numbers")


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
        sizes = PageSizes(path, file, {name}, DEFAULT)
        for group in range(file.num_row_groups):
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // sizes.largest_value(group)))
            for batch in file.iter_batches(rows, row_groups=[group], columns=[name]):
                values = values_of(batch.column(name))
                size += sum(map(sys.getsizeof, {id(value): value for value in values}.values()))
                _check_total(path, size)
                if bad := next((v for v in values if isinstance(v, Unreadable)), None):
                    raise DataError(f"cannot read column {name!r} of {shown(path)}: {bad.reason}")
                found += values
    return found


PARQUET = OutputFormat(
    ".parquet", ParquetWriter, _read, keeps_columns=True, shard=True, provenance=_provenance
)
