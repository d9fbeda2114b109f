"""Measures of predicted classes, and the folds in which they are predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.dataset import ITEMS, Dataset
from fmrt.evaluation.measures import Measure, mean_of

Rows = NDArray[np.int64]
TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Fold:
    """Rows to learn from, and rows to predict."""

    train: Rows
    test: Rows


def folds(data: Dataset, count: int, seed: int) -> list[Fold]:
    """The data's own split, or ``count`` folds in which each class has its part.

    Equal items are in one fold, so that none is predicted from itself. A class of one distinct item
    is in no fold.
    """
    if data.split is not None:
        split = np.array(data.split)
        return [Fold(np.flatnonzero(split == TRAIN), np.flatnonzero(split == TEST))]
    first = data.sides[ITEMS].first_of_equals
    distinct = np.flatnonzero(first == np.arange(len(first)))
    targets = data.targets[distinct]
    alone = np.flatnonzero(np.bincount(targets) == 1)
    distinct = distinct[~np.isin(targets, alone)]
    fold_of = np.full(len(first), -1)
    for number, test in enumerate(_stratified(data.targets[distinct], count, seed)):
        fold_of[distinct[test]] = number
    fold_of = fold_of[first]
    numbers = np.unique(fold_of[fold_of >= 0])
    return [
        Fold(np.flatnonzero((fold_of != i) & (fold_of >= 0)), np.flatnonzero(fold_of == i))
        for i in numbers
    ]


def _stratified(targets: Rows, count: int, seed: int) -> Iterator[Rows]:
    """The rows of each fold. The items of each class are dealt out in turn, in a drawn order."""
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(targets == c)) for c in np.unique(targets)]
    dealt = np.concatenate([*by_class, np.empty(0, np.int64)])
    for number in range(min(count, len(dealt))):
        yield np.sort(dealt[number::count])


def classification_measures(true: Rows, predicted: Rows, classes: int) -> list[Measure]:
    """Accuracy, macro F1 and balanced accuracy of one prediction per item."""
    cells = true * classes + predicted

    def matrix(rows: Rows) -> NDArray[np.float64]:
        counts = np.bincount(cells[rows], minlength=classes * classes)
        return counts.reshape(classes, classes).astype(float)

    return [
        mean_of("accuracy", (true == predicted).astype(float)),
        Measure("macro F1", len(true), lambda rows: macro_f1(matrix(rows))),
        Measure("balanced accuracy", len(true), lambda rows: balanced_accuracy(matrix(rows))),
    ]


def macro_f1(matrix: NDArray[np.float64]) -> float:
    """The mean F1 of the classes that are true or predicted somewhere; rows are true classes."""
    hits, both = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    there = both > 0
    return float((2 * hits[there] / both[there]).mean())


def balanced_accuracy(matrix: NDArray[np.float64]) -> float:
    """The mean recall of the classes that are true somewhere."""
    total = matrix.sum(1)
    there = total > 0
    return float((np.diag(matrix)[there] / total[there]).mean())
