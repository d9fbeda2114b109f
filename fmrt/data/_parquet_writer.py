"""Vectors and the columns carried along, written to a parquet file in row groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data._columnar import array_of
from fmrt.data._npy import check_vectors
from fmrt.data._pyarrow import EMBEDDING, pyarrow, reading_parquet
from fmrt.data.provenance import metadata
from fmrt.errors import DataError
from fmrt.whole_file import PendingFile, nothing, writing
from fmrt.words import one_line

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_GROUP_BYTES = 1 << 25
_GROUP_ROWS = 1 << 14


class ParquetWriter:
    """Writes the kept columns, then the vectors as fixed_size_list<dtype>[dim].

    Vectors of patches are a fixed_size_list of those.

    A kept column has the type that it has in ``like``, another such file; by default the type that
    pyarrow infers from its first row group, or of strings if it has no value there.
    """

    def __init__(
        self,
        output: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: tuple[str, ...],
        like: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._arrow = pyarrow()
        self._metadata = metadata(provenance)
        if EMBEDDING in keep:
            raise DataError(f"cannot keep {EMBEDDING!r}: the vectors are written under that name")
        self._shape, self._dtype, self._keep = shape, dtype, keep
        self._clear()
        self._schema: pa.Schema | None = None
        if like is not None:
            with reading_parquet(like):
                self._schema = self._arrow.parquet.read_schema(like)
        self._parquet: parquet.ParquetWriter | None = None
        self._pending = PendingFile(output)

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape] with the n rows they belong to."""
        check_vectors(vectors, (len(kept), *self._shape), self._dtype)
        self._vectors.append(vectors.copy())  # the caller may use the memory again
        self._rows.extend(kept)
        self._bytes += vectors.nbytes + sum(self._text_bytes(row) for row in kept)
        if self._bytes >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Write what is left and the footer, and give the file its name."""
        if self._rows or self._parquet is None:
            self._flush()
        with writing(self._pending.output):
            if self._parquet is not None:
                self._parquet.close()
        self._pending.commit(before)

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        if self._parquet is not None:
            with suppress(OSError, ValueError, self._arrow.ArrowException):
                self._parquet.close()
        self._pending.abort()

    def _clear(self) -> None:
        self._vectors: list[NDArray[Any]] = []
        self._rows: list[Mapping[str, object]] = []
        self._bytes = 0

    def _text_bytes(self, row: Mapping[str, object]) -> int:
        return sum(len(v) for name in self._keep if isinstance(v := row.get(name), str))

    def _flush(self) -> None:
        schema = self._schema
        arrays = [
            self._column(name, schema.field(name).type if schema else None) for name in self._keep
        ]
        table = self._arrow.table([*arrays, self._embedding()], names=[*self._keep, EMBEDDING])
        with writing(self._pending.output):
            self._write(table.replace_schema_metadata(self._metadata))
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
            self._pending.file, schema, use_dictionary=list(self._keep), version="2.6"
        )

    def _embedding(self) -> pa.Array:
        vectors = np.concatenate([np.empty((0, *self._shape), self._dtype), *self._vectors])
        values = self._arrow.array(vectors.reshape(-1))
        for size in reversed(self._shape):
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
