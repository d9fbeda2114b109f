"""The nearest rows of a matrix by cosine, in blocks. No matrix of all pairs is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
# 64 MiB of float32 cosines.
_BLOCK_ELEMENTS = 1 << 24
# The groups of columns for each neighbour that is asked for. More make the bound tighter.
_GROUPS = 8


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """The rows scaled to length 1; rows of zeros stay zeros."""
    values = vectors.astype(np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    found: Vectors = values / np.maximum(norms, 1e-30)
    return found


def blocks(queries: Vectors, base: Vectors) -> Iterator[tuple[int, Vectors]]:
    """The products of the rows with all of ``base``, in blocks, after each block's first row."""
    size = max(1, _BLOCK_ELEMENTS // max(1, len(base)))
    for start in range(0, len(queries), size):
        yield start, queries[start : start + size] @ base.T


def nearest(
    queries: Vectors,
    base: Vectors,
    k: int,
    *,
    not_these: Sequence[int] | NDArray[np.int64] | None = None,
    look: Callable[[int, Vectors], None] | None = None,
) -> tuple[NDArray[np.int64], Vectors]:
    """The ``k`` rows of ``base`` of the highest product with each query, best first.

    Args:
        queries: The queries, as unit rows.
        base: The rows to search, as unit rows.
        k: The number of neighbours, at most ``len(base)``.
        not_these: For each query, the row that must not be found, or -1.
        look: A function that is called for each block of products, before ``not_these`` applies,
            with the row of the block's first query, and the products.

    Returns:
        The rows ``[n, k]``, and their products. Of rows with equal products, the first ones are
        taken. Where ``not_these`` leaves fewer than ``k``, the last product is -infinity.
    """
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start, products in blocks(queries, base):
        stop = start + len(products)
        if look is not None:
            look(start, products)
        if not_these is not None:
            gone = np.asarray(not_these[start:stop])
            own = np.flatnonzero(gone >= 0)
            products[own, gone[own]] = -np.inf
        rows[start:stop] = _best(products, k)
        scores[start:stop] = np.take_along_axis(products, rows[start:stop], axis=1)
    return rows, scores


def _best(products: Vectors, k: int) -> NDArray[np.int64]:
    """The columns of the ``k`` largest products of each row, best first; of equals, the first.

    Each row's columns are in groups, of which ``k`` reach a bound. Only products that reach it are
    sorted. They are few, and finding them reads the products once.
    """
    count, n = products.shape
    width = max(1, n // (_GROUPS * k))
    groups = n // width
    most = products[:, : groups * width].reshape(count, groups, width).max(2)
    bound = np.partition(most, groups - k, axis=1)[:, groups - k]
    row, column = np.divmod(np.flatnonzero(products >= bound[:, None]), n)
    counts = np.bincount(row, minlength=count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((count, counts.max()), np.int64)
    scores = np.full(columns.shape, -np.inf, np.float32)
    columns[row, place], scores[row, place] = column, products[row, column]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, order, axis=1)
