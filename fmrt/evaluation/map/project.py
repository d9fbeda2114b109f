"""Bring vectors to places in the plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.neighbours import Vectors

METHODS = ("pca", "tsne", "umap")
_PLANE = 2
# The dimensions that t-SNE and UMAP begin with. Distances in more are mostly noise, and slow.
_BEFORE = 50
_PERPLEXITY = 30
_START = 1e-4
_LEAST = 4  # the fewest points whose neighbours t-SNE and UMAP can look at


@dataclass(frozen=True)
class Plane:
    """The places of points in the plane.

    Attributes:
        coordinates: The coordinates, float32 ``[n, 2]``.
        axes: The name of each direction, for people.
    """

    coordinates: NDArray[np.float32]
    axes: tuple[str, str]


def project(vectors: Vectors, method: str = "pca", seed: int = 0) -> Plane:
    """Bring vectors into the plane. The same seed gives the same places.

    In addition to the vectors, memory holds a matrix ``[dim, dim]`` and the results; it is bounded.

    Args:
        vectors: The vectors, float32 ``[n, dim]``, all finite.
        method: The method: ``pca``, ``tsne`` or ``umap``; the last needs the package umap-learn.
        seed: The seed of t-SNE and UMAP.

    Raises:
        DataError: There are too few vectors.
        OptionError: There is no such method, or its package is not installed.
    """
    if method not in METHODS:
        raise OptionError(f"method={quoted(method)}; choose from: {', '.join(METHODS)}")
    if method == "pca":
        return _pca(vectors)
    if len(vectors) < _LEAST:
        raise DataError(f"{method} needs at least {_LEAST} items, and there are {len(vectors)}")
    learned = _tsne(vectors, seed) if method == "tsne" else _umap(len(vectors), seed)
    shorter = principal(vectors, _BEFORE)[0] if vectors.shape[1] > _BEFORE else vectors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that equal vectors have no axes to begin with
        found = np.asarray(learned.fit_transform(shorter), np.float32)
    name = "t-SNE" if method == "tsne" else "UMAP"
    return Plane(found, (f"{name} 1", f"{name} 2"))


def principal(vectors: Vectors, most: int) -> tuple[Vectors, NDArray[np.float64]]:
    """The coordinates ``[n, kept]`` along the axes of most variance, and each axis's share."""
    kept = min(most, *vectors.shape)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # equal vectors have no variance to share
        pca = PCA(kept, svd_solver="covariance_eigh")
        found = np.asarray(pca.fit_transform(vectors), np.float32)
    return found, np.nan_to_num(np.asarray(pca.explained_variance_ratio_, np.float64))


def _pca(vectors: Vectors) -> Plane:
    found, share = principal(vectors, _PLANE)
    missing = _PLANE - found.shape[1]
    found, share = np.pad(found, ((0, 0), (0, missing))), np.pad(share, (0, missing))
    first, second = (f"PC {i} ({part:.1%} of variance)" for i, part in enumerate(share, 1))
    return Plane(found, (first, second))


def _tsne(vectors: Vectors, seed: int) -> Any:  # noqa: ANN401  # scikit-learn's have no types
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    start = _pca(vectors).coordinates  # scaled as scikit-learn does; equal vectors have no spread
    start *= _START / max(float(start[:, 0].std()), 1e-30)
    return TSNE(_PLANE, perplexity=perplexity, init=start, random_state=seed)


def _umap(count: int, seed: int) -> Any:  # noqa: ANN401
    try:
        from umap import UMAP  # it is optional
    except ImportError as e:
        raise OptionError("method='umap'; needs umap-learn: pip install umap-learn") from e
    return UMAP(n_components=_PLANE, n_neighbors=min(15, count - 1), random_state=seed, n_jobs=1)
