"""The common parts of the tasks of labelled items."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.classification import Rows, classification_measures, folds
from fmrt.evaluation.dataset import ITEMS, Dataset
from fmrt.evaluation.measures import Measure
from fmrt.evaluation.tasks._base import Embedded

_TWO = 2
# It learns from vectors and classes, and predicts the classes of other vectors.
Learner = Callable[[NDArray[np.float64], Rows, NDArray[np.float64]], Rows]


def labels_problem(data: Dataset, _: Sequence[str] = ()) -> str | None:
    """Why there is nothing to classify, or None."""
    if data.labels is None:
        return "its items have no labels"
    if len(data.classes) < _TWO:
        return f"all its items have one label, {data.classes[0]!r}"
    return None


def learning_problem(data: Dataset, _: Sequence[str] = ()) -> str | None:
    """Why classes cannot be learned and predicted, or None."""
    problem = labels_problem(data)
    if problem is not None:
        return problem
    found = folds(data, _TWO, 0)
    for fold in found:
        if len(np.unique(data.targets[fold.train])) < _TWO or not len(fold.test):
            return (
                "it has fewer than two classes to learn from, of two distinct items each or of one "
                "in the split 'train'"
            )
    return None if found else "no class has two distinct items"


def predicted_measures(embedded: Embedded, learner: Learner) -> list[Measure]:
    """The measures of what a learner predicts for the items of all folds, each predicted once."""
    data, settings = embedded.data, embedded.settings
    vectors = scaled(embedded.vectors[ITEMS])
    rows, predicted = [], []
    for fold in folds(data, settings.folds, settings.seed):
        rows.append(fold.test)
        targets = data.targets[fold.train]
        predicted.append(learner(vectors[fold.train], targets, vectors[fold.test]))
    true = data.targets[np.concatenate(rows)]
    return classification_measures(true, np.concatenate(predicted), len(data.classes))


def scaled(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """The vectors times one number, so that their mean squared length is 1 per dimension.

    The results of a learner then do not depend on the unit of a model's vectors.
    """
    values = vectors.astype(np.float64)
    scale = np.linalg.norm(values) / np.sqrt(values.size)
    values /= max(float(scale), 1e-30)
    return values
