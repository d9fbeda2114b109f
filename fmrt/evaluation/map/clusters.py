"""Groups of vectors that are near to each other."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from fmrt.evaluation.neighbours import Vectors

_BATCH = 4096
_STARTS = 3


def clustered(vectors: Vectors, count: int, seed: int) -> NDArray[np.uint16]:
    """The cluster of each vector by k-means, the largest cluster first.

    Args:
        vectors: The vectors, as unit rows ``[n, dim]``.
        count: The number of clusters. At most the number of different vectors is found.
        seed: The seed of k-means.
    """
    count = min(count, len(vectors))
    means = MiniBatchKMeans(count, batch_size=_BATCH, n_init=_STARTS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there are fewer different vectors
        found = means.fit_predict(vectors)
    sizes = np.bincount(found, minlength=count)
    rank = np.empty(count, np.uint16)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
    of_each: NDArray[np.uint16] = rank[found]
    return of_each
