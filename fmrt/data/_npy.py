"""Vectors appended to a .npy file of yet unknown length."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data._output_format import (
    Embeddings,
    FileWriter,
    Form,
    OutputFormat,
    Stated,
    patches,
)
from fmrt.errors import DataError
from fmrt.words import one_line, shown

_NUMBERS = "fiu"
_MATRIX = 2


class NpyWriter(FileWriter):
    """Writes vectors as one array [rows, *shape]; ``kept`` is ignored, there is no place for it."""

    def __init__(self, output: str, form: Form) -> None:
        super().__init__(output, form)
        self._rows = 0
        self._append(self._header())

    def write(self, vectors: NDArray[Any], kept: Sequence[object]) -> None:
        """Append ``vectors`` [n, *shape]."""
        self._form.check(vectors, len(kept))
        self._append(np.ascontiguousarray(vectors).data)
        self._rows += len(vectors)

    def _finish(self) -> None:
        """Write the number of rows into the header."""
        self._pending.file.seek(0)
        self._pending.file.write(self._header())

    def _header(self) -> bytes:
        """The array's header, padded so that its length stays while the first axis grows."""
        header = io.BytesIO()
        shape = (self._rows, *self._form.shape)
        facts = {"descr": self._form.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()


def _read(path: str, _: Sequence[str], __: Stated) -> Embeddings:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"cannot read {shown(path)} as .npy: {one_line(e)}") from e
    if isinstance(array, np.ndarray) and array.ndim == _MATRIX + 1:
        raise patches(path)
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != _MATRIX
        or array.dtype.kind not in _NUMBERS
    ):
        raise DataError(f"{shown(path)} is not an array of numbers [rows, dim]")
    return array, {}


def _shape_of(path: str) -> tuple[list[int], str]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return list(array.shape), str(array.dtype)


NPY = OutputFormat(".npy", NpyWriter, _read, keeps_columns=False, shard=True, shape_of=_shape_of)
