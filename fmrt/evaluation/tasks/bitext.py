"""Bitext mining: whether a text's nearest neighbour in the other language is its translation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.classification import Rows
from fmrt.evaluation.dataset import FIRST, PAIRS, SECOND, Dataset
from fmrt.evaluation.measures import mean_of
from fmrt.evaluation.neighbours import Vectors, nearest, unit
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.words import count

_LEAST = 2


def _run(embedded: Embedded) -> Found:
    sides = embedded.data.sides
    first, second = (unit(embedded.vectors[name]) for name in (FIRST, SECOND))
    # If several texts are equal, each of them is right.
    one, other = (sides[name].first_of_equals for name in (FIRST, SECOND))
    forth, back = _hits(first, second, other), _hits(second, first, one)
    return Found(
        [
            mean_of("accuracy first to second", forth),
            mean_of("accuracy second to first", back),
            mean_of("accuracy", (forth + back) / 2),
        ]
    )


def _hits(queries: Vectors, base: Vectors, same: Rows) -> NDArray[np.float64]:
    found, _ = nearest(queries, base, 1)
    hits: NDArray[np.float64] = (same[found[:, 0]] == same).astype(np.float64)
    return hits


def _problem(data: Dataset, _: Sequence[str]) -> str | None:
    if data.scores is not None:
        return "its pairs have scores, and need not be translations"
    n = len(data.sides[FIRST].items)
    return None if n >= _LEAST else f"it has {count(n, 'pair')}, and two are the least"


BITEXT = Task(
    name="bitext",
    kind=PAIRS,
    about="the nearest text of the other side is the pair's own",
    run=_run,
    problem=_problem,
)
