"""Measures of quality, their intervals, and the differences of two, by resampling the items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

# The bounds of an interval of 95%.
PERCENTILES = (2.5, 97.5)
# A difference below this comes from rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Measure:
    """One figure of a task.

    Attributes:
        name: The name that people know it by.
        n: The number of items, pairs or queries that it is over.
        of: Gives the figure over some of them. It takes their rows, and a row may occur several
            times.
        resampled: Whether it has an interval. A measure over all pairs of items has none, since an
            item that occurs twice would be its own neighbour.
    """

    name: str
    n: int
    of: Callable[[NDArray[np.int64]], float]
    resampled: bool = True

    @property
    def value(self) -> float:
        """The figure over all items."""
        return float(self.of(np.arange(self.n)))


@dataclass(frozen=True)
class Measured:
    """A measure's value.

    Attributes:
        name: The measure's name.
        value: The value over all items; None where it is not defined.
        low, high: The bounds of its interval of 95%; None where it has none.
        n: The number of items, pairs or queries that it is over.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A measure's value less that of another model on the same items.

    Attributes:
        task, name: The names of the task and of the measure.
        value, other: The values of the two models.
        difference: The difference of the two.
        low, high: The bounds of its paired interval of 95%; None where the measure has none.
        told: Whether the difference can be told from zero; None where it has no interval.
    """

    task: str
    name: str
    value: float | None
    other: float | None
    difference: float | None
    low: float | None
    high: float | None
    told: bool | None


def mean_of(name: str, values: NDArray[np.float64]) -> Measure:
    """The measure that is the mean of one value per item."""
    return Measure(name, len(values), lambda rows: float(values[rows].mean()))


def constant(name: str, value: float, n: int) -> Measure:
    """A figure over all ``n`` items, without an interval."""
    return Measure(name, n, lambda _: value, resampled=False)


def measured(measures: Sequence[Measure], resamples: int, seed: int) -> tuple[Measured, ...]:
    """The values with their intervals.

    Args:
        measures: The measures.
        resamples: How often their items are drawn again, with replacement; 0 for no intervals.
        seed: The seed of the draws.
    """
    found = _intervals(measures, resamples, seed)
    return tuple(
        Measured(m.name, _known(m.value), *interval, m.n)
        for m, interval in zip(measures, found, strict=True)
    )


def differences(
    pairs: Sequence[tuple[str, Measure, Measure]], resamples: int, seed: int
) -> tuple[Difference, ...]:
    """The differences of pairs of measures with their intervals.

    Args:
        pairs: The name of the task, the measure, and that of another model on the same items. Both
            measures see the same draws.
        resamples: How often their items are drawn again, with replacement; 0 for no intervals.
        seed: The seed of the draws.
    """
    less = [
        Measure(one.name, one.n, partial(_less, one, other), one.resampled)
        for _, one, other in pairs
    ]
    found = _intervals(less, resamples, seed)
    return tuple(_difference(*p, *interval) for p, interval in zip(pairs, found, strict=True))


def _less(one: Measure, other: Measure, rows: NDArray[np.int64]) -> float:
    return one.of(rows) - other.of(rows)


def _difference(
    task: str, one: Measure, other: Measure, low: float | None, high: float | None
) -> Difference:
    told = None if low is None or high is None else low > _NOTHING or high < -_NOTHING
    a, b = one.value, other.value
    return Difference(task, one.name, _known(a), _known(b), _known(a - b), low, high, told)


def _intervals(
    measures: Sequence[Measure], resamples: int, seed: int
) -> list[tuple[float | None, float | None]]:
    """The bounds of each measure's interval. Measures over equally many items see the same draws.

    Draws are shared because they take as long as most measures do.
    """
    found: list[tuple[float | None, float | None]] = [(None, None)] * len(measures)
    with_spread = [i for i, m in enumerate(measures) if m.resampled and m.n > 1]
    for n in {measures[i].n for i in with_spread} if resamples else ():
        own = [i for i in with_spread if measures[i].n == n]
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, n, n) for _ in range(resamples))
        values = np.array([[measures[i].of(rows) for i in own] for rows in drawn])
        for i, column in zip(own, values.T, strict=True):
            found[i] = _bounds(column[np.isfinite(column)])
    return found


def _bounds(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    if not len(values):
        return None, None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
