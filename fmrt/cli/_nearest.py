"""The rows of a matrix that are nearest to a vector, by cosine, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import DataError
from fmrt.words import shown

# 64 MiB as float32: a block of a memory-mapped file.
_BLOCK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Hit:
    """A row, from 0, and its cosine similarity to the query."""

    row: int
    score: float


def check_vectors(path: str, vectors: NDArray[Any], dim: int) -> None:
    """Raise unless a query of ``dim`` dimensions can be compared with these vectors by cosine.

    Raises:
        DataError: it cannot, with the reason.
    """
    if vectors.dtype.kind != "f" and vectors.dtype != np.int8:
        # uint8 is offset, or eight dimensions a byte; nothing in the file tells which.
        raise DataError(
            f"{shown(path)} holds {vectors.dtype} vectors, which have no cosine: embed the texts "
            "with --precision float32, float16 or int8"
        )
    if not len(vectors):
        raise DataError(f"{shown(path)} holds no vectors")
    if vectors.shape[1] != dim:
        raise DataError(
            f"{shown(path)} has {vectors.shape[1]} dimensions, and the query has {dim}: search "
            "with the bundle, and the --truncate-dim, that embedded it"
        )


def nearest(path: str, vectors: NDArray[Any], query: NDArray[np.float32], k: int) -> list[Hit]:
    """Return the ``k`` rows with the highest cosine, best first, of equal ones the first row.

    Args:
        path: where the vectors come from, for messages.
        vectors: ``[n, dim]``, which may be memory-mapped.
        query: ``[dim]``.
        k: at most this many.

    Raises:
        DataError: a row holds NaN or infinity.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-30)
    rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    size = max(1, _BLOCK_ELEMENTS // vectors.shape[1])
    for start in range(0, len(vectors), size):
        block = _cosines(vectors[start : start + size], unit)
        if not np.isfinite(block).all():
            row = start + int(np.isfinite(block).argmin())
            raise DataError(f"row {row} of {shown(path)} holds NaN or infinity; embed it again")
        rows = np.concatenate([rows, np.arange(start, start + len(block))])
        scores = np.concatenate([scores, block])
        best = np.argsort(-scores, kind="stable")[:k]
        rows, scores = rows[best], scores[best]
    return [Hit(int(row), float(score)) for row, score in zip(rows, scores, strict=True)]


def _cosines(block: NDArray[Any], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):  # what overflows is not finite, and the caller looks
        values = block.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        cosines: NDArray[np.float32] = values @ unit / np.maximum(norms, 1e-30)
    return cosines
