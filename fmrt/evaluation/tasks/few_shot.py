"""Few-shot curves: the linear probe, learned from few items of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.classification import Fold, Rows, folds
from fmrt.evaluation.dataset import ITEMS, LABELLED
from fmrt.evaluation.measures import Measure, mean_of
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.evaluation.tasks._labels import learning_problem, scaled
from fmrt.evaluation.tasks.probe import predict


def _run(embedded: Embedded) -> Found:
    data, settings = embedded.data, embedded.settings
    fold = folds(data, settings.folds, settings.seed)[0]
    counts = np.bincount(data.targets[fold.train])
    most = int(counts[counts > 0].min())
    shots = [n for n in settings.shots if n <= most]
    vectors = scaled(embedded.vectors[ITEMS])
    return Found([_measure(embedded, vectors, fold, n) for n in shots], {"most shots": most})


def _measure(embedded: Embedded, vectors: NDArray[np.float64], fold: Fold, shots: int) -> Measure:
    """The accuracy at a number of shots. For each test item, it is the mean over the draws."""
    targets, settings = embedded.data.targets, embedded.settings
    test = vectors[fold.test]
    rng = np.random.default_rng([settings.seed, shots])
    right = np.zeros(len(fold.test))
    for _ in range(settings.draws):
        rows = _drawn(fold.train, targets, shots, rng)
        right += predict(vectors[rows], targets[rows], test) == targets[fold.test]
    return mean_of(f"accuracy at {shots}", right / settings.draws)


def _drawn(train: Rows, targets: Rows, shots: int, rng: np.random.Generator) -> Rows:
    found = [
        rng.choice(train[targets[train] == c], shots, replace=False)
        for c in np.unique(targets[train])
    ]
    return np.concatenate(found)


FEW_SHOT = Task(
    name="few-shot",
    kind=LABELLED,
    about="logistic regression on few items of each class, drawn several times",
    run=_run,
    problem=learning_problem,
)
