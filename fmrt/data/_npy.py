"""Vectors appended to a .npy file of yet unknown length."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.whole_file import PendingFile, nothing, writing


class NpyWriter:
    """Writes vectors as one array [rows, *shape]; ``kept`` is ignored, there is no place for it."""

    def __init__(
        self,
        output: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: tuple[str, ...],  # noqa: ARG002  # empty; the writers are made alike
        like: str | None = None,  # noqa: ARG002
        provenance: Mapping[str, Any] | None = None,  # noqa: ARG002  # in a file beside it
    ) -> None:
        self._shape = shape
        self._dtype = dtype
        self._rows = 0
        self._pending = PendingFile(output)
        self._write(self._header())

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape]."""
        check_vectors(vectors, (len(kept), *self._shape), self._dtype)
        self._write(np.ascontiguousarray(vectors).data)
        self._rows += len(vectors)

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Write the number of rows into the header and give the file its name."""
        with writing(self._pending.output):
            self._pending.file.seek(0)
            self._pending.file.write(self._header())
        self._pending.commit(before)

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        self._pending.abort()

    def _write(self, data: bytes | memoryview) -> None:
        with writing(self._pending.output):
            self._pending.file.write(data)

    def _header(self) -> bytes:
        return npy_header((self._rows, *self._shape), self._dtype)


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """An array's header, padded so that its length stays while the first axis grows."""
    header = io.BytesIO()
    facts = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def check_vectors(vectors: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ``ValueError`` unless ``vectors`` has this shape and ``dtype``."""
    if vectors.shape != shape or vectors.dtype != dtype:
        raise ValueError(
            f"vectors are {vectors.dtype} {list(vectors.shape)}; the writer takes {dtype} "
            f"{list(shape)}"
        )
