"""Vectors as JSON lines: one object per row, with the columns carried along and ``embedding``."""

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

from fmrt.data._output_format import (
    EMBEDDING,
    Embeddings,
    FileWriter,
    Form,
    OutputFormat,
    Stated,
)
from fmrt.data._source import reading
from fmrt.errors import DataError
from fmrt.system.whole_file import nothing
from fmrt.words import one_line, shown


class JsonlWriter(FileWriter):
    """Writes the kept columns of a row, then its vector; numbers are exact."""

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape]."""
        self._append(_lines(self._form, vectors, kept))


class StdoutWriter:
    """The same to standard output, as vectors come; what is written cannot be taken back."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Print ``vectors`` [n, *shape]."""
        data = _lines(self._form, vectors, kept)
        sys.stdout.flush()  # of what was printed as text
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Do nothing more: all is written."""
        before()

    def abort(self) -> None:
        """Do nothing."""


def _lines(form: Form, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> bytes:
    form.check(vectors, len(kept))
    rows = zip(vectors.tolist(), kept, strict=True)
    return b"".join(
        _line({**{name: _plain(row[name], name) for name in form.keep}, EMBEDDING: vector})
        for vector, row in rows
    )


def _line(row: Mapping[str, object]) -> bytes:
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


def _read(path: str, columns: Sequence[str], stated: Stated) -> Embeddings:
    """The vectors, in the dtype stated next to them; else float32, or int64 of whole numbers.

    Raises:
        DataError: A line is no such row, or has another number of dimensions than the first.
    """
    found = stated()
    dtype = None if found is None else found["dtype"]
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


def _count(path: str) -> tuple[list[int], None]:
    with Path(path).open("rb") as file:
        return [sum(1 for _ in file)], None


JSONL = OutputFormat(
    ".jsonl", JsonlWriter, _read, keeps_columns=True, shape_of=_count, to_stdout=StdoutWriter
)
