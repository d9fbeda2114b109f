"""Similarity of pairs: whether the cosine follows scores that people gave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from fmrt.evaluation.dataset import FIRST, PAIRS, SECOND, Dataset
from fmrt.evaluation.measures import Measure
from fmrt.evaluation.neighbours import unit
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.words import count

Values = NDArray[np.float64]
_LEAST = 3


def _run(embedded: Embedded) -> Found:
    scores = embedded.data.scores
    assert scores is not None  # noqa: S101  # the task's problem says so
    first, second = (unit(embedded.vectors[name]).astype(np.float64) for name in (FIRST, SECOND))
    return Found(similarity_measures(np.einsum("ij,ij->i", first, second), scores))


def similarity_measures(found: Values, scores: Values) -> list[Measure]:
    """The correlations of cosines with scores; the average precision where scores are 0 and 1."""
    n = len(scores)
    if set(np.unique(scores)) <= {0.0, 1.0}:
        return [
            Measure(
                "average precision", n, lambda rows: average_precision(found[rows], scores[rows])
            )
        ]
    return [
        Measure("Spearman", n, lambda rows: spearman(found[rows], scores[rows])),
        Measure("Pearson", n, lambda rows: pearson(found[rows], scores[rows])),
    ]


def average_precision(found: Values, scores: Values) -> float:
    """The average precision of pairs that belong together, ranked by cosine; NaN if none does."""
    return float(average_precision_score(scores, found)) if scores.any() else float("nan")


def pearson(one: Values, other: Values) -> float:
    """The correlation of two arrays; NaN where one of them is constant."""
    a, b = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float("nan")


def spearman(one: Values, other: Values) -> float:
    """The correlation of the ranks; NaN where one of the two arrays is constant."""
    return pearson(rankdata(one), rankdata(other))


def _problem(data: Dataset, _: Sequence[str]) -> str | None:
    if data.scores is None:
        return "its pairs have no scores"
    if len(data.scores) < _LEAST:
        return f"it has {count(len(data.scores), 'pair')}, and three are the least"
    if np.ptp(data.scores) == 0:
        return f"all its scores are {data.scores[0]:g}"
    return None


SIMILARITY = Task(
    name="similarity",
    kind=PAIRS,
    about="cosine of pairs against scores",
    run=_run,
    problem=_problem,
)
