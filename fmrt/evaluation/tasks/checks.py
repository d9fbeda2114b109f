"""Checks that need no labels: how the vectors lie in their space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.dataset import DOCUMENTS, FIRST, ITEMS, PAIRS, SECOND, Dataset
from fmrt.evaluation.measures import Measure, constant, mean_of
from fmrt.evaluation.neighbours import Vectors, nearest, unit
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.words import count

_LEAST = 3
_NEIGHBOURS = 10
# The cosine from which on two items are near-duplicates.
NEAR = 0.995
# An item is an outlier from so many quartile ranges below the first quartile on, as the far-out
# points of a box plot are.
_FAR = 3.0
_MOST_SHOWN = 5
# Uniformity is over all pairs of at most so many items. Of more items, so many are drawn.
_MOST_ITEMS = 5_000
_BLOCK = 256


def _run(embedded: Embedded) -> Found:
    name = _side(embedded.data)
    vectors, places = unit(embedded.vectors[name]), embedded.data.sides[name].places
    near = _Near.of(vectors, embedded.settings.seed)
    measures = [
        *_alignment(embedded),
        constant("uniformity", near.uniformity, len(vectors)),
        constant("effective rank", effective_rank(vectors), len(vectors)),
        constant("mean cosine", mean_cosine(vectors), len(vectors)),
        constant("hubness", near.hubness(), len(vectors)),
        mean_of("near-duplicates", (near.cosines[:, 0] >= NEAR).astype(np.float64)),
        mean_of("outliers", near.outliers().astype(np.float64)),
    ]
    return Found(measures, _details(near, places))


@dataclass(frozen=True)
class _Near:
    """The nearest neighbours of each item among the others, and the uniformity of the vectors."""

    rows: NDArray[np.int64]
    cosines: Vectors
    uniformity: float

    @classmethod
    def of(cls, vectors: Vectors, seed: int) -> _Near:
        n = len(vectors)
        rows, cosines = nearest(vectors, vectors, min(_NEIGHBOURS, n - 1), not_these=np.arange(n))
        drawn = vectors
        if n > _MOST_ITEMS:
            chosen = np.random.default_rng(seed).choice(n, _MOST_ITEMS, replace=False)
            drawn = vectors[np.sort(chosen)]
        return cls(rows, cosines, uniformity(drawn))

    def hubness(self) -> float:
        """The skewness of how often an item is among the nearest of the others."""
        counts = np.bincount(self.rows.ravel(), minlength=len(self.rows)).astype(float)
        return skewness(counts)

    def outliers(self) -> NDArray[np.bool_]:
        """The items whose nearest neighbours are far away, compared with those of the others."""
        closeness = self.cosines.astype(np.float64).mean(1)
        low, high = np.percentile(closeness, (25, 75))
        found: NDArray[np.bool_] = closeness < low - _FAR * (high - low)
        return found


def uniformity(vectors: NDArray[np.floating]) -> float:
    """The log of the mean of exp(-2 d^2) over pairs of different unit vectors at distance d.

    A lower value is more uniform. See Wang and Isola, 2020.
    """
    values = vectors.astype(np.float64)
    squares, n, total = (values**2).sum(1), len(values), 0.0
    for start in range(0, n, _BLOCK):
        own = values[start : start + _BLOCK]
        distances = squares[start : start + len(own), None] + squares[start:]
        weights = np.exp(-2 * (distances - 2 * own @ values[start:].T))
        # Each pair counts once. Those within the block are there twice.
        within = weights[:, : len(own)]
        total += float(weights[:, len(own) :].sum()) + float(within.sum() - np.trace(within)) / 2
    return float(np.log(2 * total / (n * (n - 1))))


def effective_rank(vectors: Vectors) -> float:
    """The exponential of the entropy of the singular values, as parts of their sum."""
    values = vectors.astype(np.float64)
    squares = np.linalg.eigvalsh(values.T @ values)
    singular = np.sqrt(np.maximum(squares, 0.0))
    part = singular[singular > 0] / singular.sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def mean_cosine(vectors: Vectors) -> float:
    """The mean cosine of pairs of items: 0 if directions are even, 1 if all are the same."""
    values = vectors.astype(np.float64)
    n, total = len(values), values.sum(0)
    return float((total @ total - np.vdot(values, values)) / (n * (n - 1)))


def skewness(values: NDArray[np.float64]) -> float:
    """The third standardized moment; 0 where all values are equal."""
    centred = values - values.mean()
    spread = float((centred**2).mean())
    return float((centred**3).mean() / spread**1.5) if spread else 0.0


def alignment(vectors: Vectors, targets: NDArray[np.int64]) -> float:
    """The mean squared distance of unit vectors of one class, over all pairs of different items."""
    total, pairs = 0.0, 0
    for number in np.unique(targets):
        own = vectors[targets == number].astype(np.float64)
        n, summed = len(own), own.sum(0)
        total += 2 * n * float((own**2).sum()) - 2 * float(summed @ summed)
        pairs += n * (n - 1)
    return total / pairs if pairs else float("nan")


def _alignment(embedded: Embedded) -> list[Measure]:
    """The distance of items of one class, or of pairs that belong together."""
    data = embedded.data
    if data.labels is not None:
        vectors = unit(embedded.vectors[ITEMS])
        return [constant("alignment", alignment(vectors, data.targets), len(vectors))]
    if data.kind != PAIRS or (data.scores is not None and set(data.scores) - {0.0, 1.0}):
        return []
    first, second = (unit(embedded.vectors[name]).astype(np.float64) for name in (FIRST, SECOND))
    squared = ((first - second) ** 2).sum(1)
    together = squared if data.scores is None else squared[data.scores > 0]
    return [mean_of("alignment", together)] if len(together) else []


def _details(near: _Near, places: Sequence[str]) -> dict[str, Any]:
    close = np.flatnonzero(near.cosines[:, 0] >= NEAR).tolist()
    pairs = {
        (min(i, j), max(i, j)) for i, j in zip(close, near.rows[close, 0].tolist(), strict=True)
    }
    shown = sorted(pairs)[:_MOST_SHOWN]
    closeness = near.cosines.astype(np.float64).mean(1)
    found = np.flatnonzero(near.outliers())
    far = found[np.argsort(closeness[found], kind="stable")].tolist()
    return {
        "near-duplicates": [[places[i] for i in pair] for pair in shown],
        "outliers": [places[i] for i in far[:_MOST_SHOWN]],
    }


def _side(data: Dataset) -> str:
    return next(name for name in (ITEMS, FIRST, DOCUMENTS) if name in data.sides)


def _problem(data: Dataset, _: Sequence[str]) -> str | None:
    n = len(data.sides[_side(data)].items)
    return None if n >= _LEAST else f"it has {count(n, 'item')}, and three are the least"


CHECKS = Task(
    name="checks",
    kind=None,
    about="how the vectors lie in their space, without labels",
    run=_run,
    problem=_problem,
)
