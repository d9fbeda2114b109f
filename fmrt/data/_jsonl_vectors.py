"""Vectors as JSON lines: an object a row, with the columns carried along and ``embedding``."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data._npy import check_vectors
from fmrt.data._pyarrow import EMBEDDING
from fmrt.data._source import reading
from fmrt.errors import DataError
from fmrt.whole_file import PendingFile, nothing, writing
from fmrt.words import one_line, shown

EXTENSION = ".jsonl"


class JsonlWriter:
    """Writes the kept columns of a row, then its vector; numbers are exact."""

    def __init__(
        self,
        output: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: tuple[str, ...],
        like: str | None = None,  # noqa: ARG002  # the writers are made alike
        provenance: Mapping[str, Any] | None = None,  # noqa: ARG002  # in a file beside it
    ) -> None:
        self._lines = _Lines(shape, dtype, keep)
        self._pending = PendingFile(output)

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape]."""
        data = self._lines.of(vectors, kept)
        with writing(self._pending.output):
            self._pending.file.write(data)

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Give the file its name."""
        self._pending.commit(before)

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        self._pending.abort()


class StdoutWriter:
    """The same to standard output, as vectors come; what is written cannot be taken back."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], keep: tuple[str, ...]) -> None:
        self._lines = _Lines(shape, dtype, keep)

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Print ``vectors`` [n, *shape]."""
        data = self._lines.of(vectors, kept)
        sys.stdout.flush()  # of what was printed as text
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Do nothing more: all is written."""
        before()

    def abort(self) -> None:
        """Do nothing."""


class _Lines:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], keep: tuple[str, ...]) -> None:
        if EMBEDDING in keep:
            raise DataError(f"cannot keep {EMBEDDING!r}: the vectors are written under that name")
        self._shape, self._dtype, self._keep = shape, dtype, keep

    def of(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> bytes:
        check_vectors(vectors, (len(kept), *self._shape), self._dtype)
        rows = zip(vectors.tolist(), kept, strict=True)
        return b"".join(
            self._line({**{name: _plain(row[name], name) for name in self._keep}, EMBEDDING: v})
            for v, row in rows
        )

    def _line(self, row: Mapping[str, object]) -> bytes:
        return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plain(value: object, column: str) -> object:
    """A value of a column as JSON has it.

    Raises:
        DataError: JSON has no such value.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one, column) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, column) for one in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise DataError(
        f"cannot keep {column!r}: JSON has no {type(value).__name__}; write .parquet instead"
    )


def read_jsonl_vectors(
    path: str, columns: Sequence[str], dtype: str | None
) -> tuple[NDArray[Any], dict[str, list[object]]]:
    """Vectors [n, dim], and the columns that every row has.

    Args:
        path: of the file.
        columns: names of those to return.
        dtype: of the vectors when they were written; None for float32, or int64 of whole numbers.

    Raises:
        DataError: a line is no such row, or has another number of dimensions than the first.
    """
    vectors: list[NDArray[Any]] = []
    kept: dict[str, list[object]] = {name: [] for name in columns}
    for number, row in _rows(path):
        vectors.append(_vector(path, number, row, dtype))
        if vectors[-1].shape != vectors[0].shape:
            raise DataError(
                f"{shown(path)} line {number}: {len(vectors[-1])} dimensions, and the first line "
                f"has {len(vectors[0])}"
            )
        for name in [name for name in kept if name not in row]:
            del kept[name]
        for name, values in kept.items():
            values.append(row[name])
    return np.array(vectors) if vectors else np.empty((0, 0), np.float32), kept


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with reading(path), Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise DataError(f"{shown(path)} line {number}: {one_line(e)}") from e
            if not isinstance(row, dict) or EMBEDDING not in row:
                raise DataError(f"{shown(path)} line {number} is no object with {EMBEDDING!r}")
            yield number, row


def _vector(path: str, number: int, row: Mapping[str, Any], dtype: str | None) -> NDArray[Any]:
    try:
        vector = np.array(row[EMBEDDING])
    except (ValueError, OverflowError):
        vector = np.empty(0, object)
    if vector.ndim != 1 or vector.dtype.kind not in "fi":
        raise DataError(f"{EMBEDDING!r} of {shown(path)} line {number} is no list of numbers")
    return vector.astype(dtype or (np.float32 if vector.dtype.kind == "f" else np.int64))
