"""Vectors made small enough to be in a page."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.map.chart import Stored
from fmrt.evaluation.neighbours import Vectors

# The most bytes of all vectors of a page, and the fewest dimensions that each vector keeps.
BYTES = 8 << 20
_LEAST = 16
_BLOCK = 1 << 14
_TOP = 127


def stored(vectors: Vectors) -> Stored:
    """Keep the dimensions of unit vectors that their cosines need most, as int8.

    The vectors are turned so that the first dimensions hold most of their length. As many
    dimensions are kept as `BYTES` allows. No mean is subtracted, so that products stay cosines.

    Args:
        vectors: The vectors, as unit rows ``[n, dim]``.
    """
    count, dim = vectors.shape
    kept = min(dim, max(_LEAST, BYTES // max(1, count)))
    axes = _axes(vectors)[:, :kept] if kept < dim else None
    values = np.empty((count, kept), np.int8)
    for start in range(0, count, _BLOCK):
        block = vectors[start : start + _BLOCK]
        values[start : start + _BLOCK] = _rounded(block if axes is None else block @ axes)
    return Stored(values, dim, axes)


def _axes(vectors: Vectors) -> NDArray[np.float32]:
    """Orthogonal directions ``[dim, dim]``, in columns; the one with most length comes first."""
    products = np.zeros((vectors.shape[1], vectors.shape[1]), np.float64)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        products += block.T @ block
    return np.linalg.eigh(products)[1][:, ::-1].astype(np.float32)


def _rounded(block: Vectors) -> NDArray[np.int8]:
    largest = np.maximum(np.abs(block).max(axis=1, keepdims=True), 1e-30)
    rounded: NDArray[np.int8] = np.rint(block * (_TOP / largest)).astype(np.int8)
    return rounded
