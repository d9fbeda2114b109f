"""The linear probe: logistic regression on frozen vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fmrt.evaluation.classification import Rows
from fmrt.evaluation.dataset import LABELLED
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.evaluation.tasks._labels import learning_problem, predicted_measures

_STEPS = 1000


def predict(train: NDArray[np.float64], targets: Rows, test: NDArray[np.float64]) -> Rows:
    """The classes of ``test`` by logistic regression."""
    found: Rows = LogisticRegression(max_iter=_STEPS).fit(train, targets).predict(test)
    return found


def _run(embedded: Embedded) -> Found:
    return Found(predicted_measures(embedded, predict))


PROBE = Task(
    name="probe",
    kind=LABELLED,
    about="logistic regression on the vectors",
    run=_run,
    problem=learning_problem,
)
