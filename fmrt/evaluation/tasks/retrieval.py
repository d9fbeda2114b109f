"""Retrieval: how high the documents that belong to a query are ranked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.dataset import DOCUMENTS, QUERIES, RETRIEVAL, Dataset
from fmrt.evaluation.measures import mean_of
from fmrt.evaluation.neighbours import nearest, unit
from fmrt.evaluation.tasks._base import Embedded, Found, Task

_CUT = 10
_RECALLS = (10, 100)
MEASURES = (f"nDCG@{_CUT}", *(f"recall@{k}" for k in _RECALLS), "MRR", "MAP")


def _run(embedded: Embedded) -> Found:
    data = embedded.data
    documents, queries = (unit(embedded.vectors[name]) for name in (DOCUMENTS, QUERIES))
    depth = min(embedded.settings.depth, len(documents))
    ranked, scores = nearest(queries, documents, depth, not_these=data.twins)
    rows = []
    for found, score, relevant in zip(ranked, scores, data.relevant, strict=True):
        gains = np.array([relevant.get(int(i), 0.0) for i in found[np.isfinite(score)]])
        rows.append(ranking_measures(gains, relevant.values()))
    values = np.array(rows)
    return Found([mean_of(name, values[:, i]) for i, name in enumerate(MEASURES)])


def ranking_measures(gains: NDArray[np.float64], judged: Collection[float]) -> list[float]:
    """The `MEASURES` of one query, as trec_eval has them.

    Args:
        gains: The gains of the ranked documents, best first; 0 for one that is not relevant.
        judged: The gains of all documents that were judged. If none is above 0, all measures are 0.
    """
    best = np.sort([gain for gain in judged if gain > 0])[::-1]
    if not len(best):
        return [0.0] * len(MEASURES)
    hits = gains > 0
    ranks = np.flatnonzero(hits) + 1
    return [
        _dcg(np.maximum(gains, 0)) / _dcg(best),
        *(float(hits[:k].sum()) / len(best) for k in _RECALLS),
        1.0 / int(ranks[0]) if len(ranks) else 0.0,
        float((np.arange(1, len(ranks) + 1) / ranks).sum()) / len(best),
    ]


def _dcg(gains: NDArray[np.float64]) -> float:
    top = gains[:_CUT]
    return float((top / np.log2(np.arange(2, len(top) + 2))).sum())


def _problem(data: Dataset, _: Sequence[str]) -> str | None:
    return None if data.relevant else "no query has a relevant document"


RETRIEVE = Task(
    name="retrieval",
    kind=RETRIEVAL,
    about="ranks of the relevant documents by cosine",
    run=_run,
    problem=_problem,
)
