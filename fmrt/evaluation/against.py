"""Compare a model with another one by each measure, the neighbours and the order of all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fmrt.evaluation.measures import Difference, Measure, differences, mean_of, measured
from fmrt.evaluation.neighbours import Vectors, nearest, unit
from fmrt.evaluation.report import Against
from fmrt.evaluation.settings import Settings
from fmrt.evaluation.tasks.pairs import spearman

_NEIGHBOURS = 10
_PAIRS = 10_000
# Neighbours are compared for at most so many items. Of more items, so many are drawn.
_MOST_ITEMS = 20_000
Measures = Mapping[str, Sequence[Measure]]


def compared(
    model: Mapping[str, object],
    one: tuple[Measures, Vectors],
    other: tuple[Measures, Vectors],
    settings: Settings,
) -> Against:
    """Compare a model's measures and vectors with another's on the same items.

    Args:
        model: What the other model says about itself.
        one: The measures by task, and the vectors of the items among which neighbours are found.
        other: The same two of the other model.
        settings: The evaluation's settings.
    """
    resamples, seed = settings.resamples, settings.seed
    pairs = [
        (task, a, b)
        for task, measures in one[0].items()
        for a, b in zip(measures, other[0][task], strict=True)
    ]
    found = differences(pairs, resamples, seed)
    vectors = one[1], other[1]
    alike = [neighbours_kept(*vectors, seed), rank_correlation(*vectors, seed)]
    kept, ranks = measured(alike, resamples, seed)
    return Against(dict(model), found, kept, ranks, _verdict(found, str(model["name"])))


def neighbours_kept(one: Vectors, other: Vectors, seed: int) -> Measure:
    """The part of each item's nearest that is the same by both models."""
    n = len(one)
    rows = np.arange(n)
    if n > _MOST_ITEMS:
        rows = np.sort(np.random.default_rng(seed).choice(n, _MOST_ITEMS, replace=False))
    k = min(_NEIGHBOURS, len(rows) - 1)
    places = np.arange(len(rows))
    found = []
    for vectors in (one, other):
        drawn = unit(vectors[rows])
        found.append(nearest(drawn, drawn, k, not_these=places)[0])
    kept = [len(np.intersect1d(a, b)) / max(1, k) for a, b in zip(*found, strict=True)]
    return mean_of(f"neighbours kept of {k}", np.array(kept))


def rank_correlation(one: Vectors, other: Vectors, seed: int) -> Measure:
    """Spearman's correlation of the cosines that both models give to drawn pairs."""
    rng, n = np.random.default_rng(seed), len(one)
    first = rng.integers(0, n, min(_PAIRS, n * (n - 1) // 2))
    second = (first + rng.integers(1, n, len(first))) % n
    a, b = (np.einsum("ij,ij->i", v[first], v[second]) for v in (unit(one), unit(other)))
    return Measure("rank correlation of cosines", len(first), lambda r: spearman(a[r], b[r]))


def _verdict(found: Sequence[Difference], name: str) -> str:
    asked = [d for d in found if d.told is not None]
    told = [d for d in asked if d.told]
    if not asked:
        return f"no measure has an interval, so no difference from {name} can be told from zero"
    if not told:
        return f"none of {len(asked)} differences from {name} can be told from zero (95%)"
    shown = ", ".join(f"{d.task} {d.name} {d.difference:+.4f}" for d in told)
    return (
        f"{len(told)} of {len(asked)} differences from {name} can be told from zero (95%): {shown}"
    )
