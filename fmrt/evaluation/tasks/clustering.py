"""Clustering: whether k-means finds the classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from fmrt.evaluation.classification import Rows
from fmrt.evaluation.dataset import ITEMS, LABELLED, Dataset
from fmrt.evaluation.measures import Measure
from fmrt.evaluation.neighbours import unit
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.evaluation.tasks._labels import labels_problem

_STARTS = 10
Counts = NDArray[np.float64]


def _run(embedded: Embedded) -> Found:
    true, k = embedded.data.targets, len(embedded.data.classes)
    vectors = unit(embedded.vectors[ITEMS])
    model = KMeans(k, n_init=_STARTS, random_state=embedded.settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there are fewer different vectors
        clusters = model.fit_predict(vectors)
    return Found(clustering_measures(true, clusters))


def clustering_measures(true: Rows, clusters: Rows) -> list[Measure]:
    """The V-measure and the adjusted Rand index of a clustering."""
    columns = int(clusters.max()) + 1
    shape = (int(true.max()) + 1, columns)
    cells = true * columns + clusters

    def counts(rows: Rows) -> Counts:
        found = np.bincount(cells[rows], minlength=shape[0] * columns)
        return found.reshape(shape).astype(float)

    return [
        Measure("V-measure", len(true), lambda rows: v_measure(counts(rows))),
        Measure("adjusted Rand index", len(true), lambda rows: adjusted_rand(counts(rows))),
    ]


def v_measure(counts: Counts) -> float:
    """The harmonic mean of homogeneity and completeness; rows are classes, columns clusters."""
    of_rows, of_columns = _entropy(counts.sum(1)), _entropy(counts.sum(0))
    shared = of_rows + of_columns - _entropy(counts.ravel())
    homogeneity = shared / of_rows if of_rows else 1.0
    completeness = shared / of_columns if of_columns else 1.0
    total = homogeneity + completeness
    return 2 * homogeneity * completeness / total if total else 0.0


def adjusted_rand(counts: Counts) -> float:
    """The pairs of items that classes and clusters agree about, corrected for chance."""
    both, rows, columns = (_pairs(c) for c in (counts, counts.sum(1), counts.sum(0)))
    expected = rows * columns / _pairs(counts.sum(keepdims=True))
    most = (rows + columns) / 2
    return float((both - expected) / (most - expected)) if most != expected else 1.0


def _entropy(counts: Counts) -> float:
    part = counts[counts > 0] / counts.sum()
    return float(-(part * np.log(part)).sum())


def _pairs(counts: Counts) -> float:
    return float((counts * (counts - 1)).sum() / 2)


def _problem(data: Dataset, modalities: Sequence[str]) -> str | None:
    problem = labels_problem(data, modalities)
    items, classes = len(data.sides[ITEMS].items), len(data.classes)
    if problem is None and items <= classes:
        problem = f"it has {items} items of {classes} classes"
    return problem


CLUSTERING = Task(
    name="clustering",
    kind=LABELLED,
    about="k-means with as many clusters as classes",
    run=_run,
    problem=_problem,
)
