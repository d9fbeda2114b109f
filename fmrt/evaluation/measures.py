"""Measures of quality, their intervals, and the differences of two, by resampling the items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def measured(measure: Measure, resamples: int, seed: int) -> Measured:
    """The value with its interval.

    Args:
        measure: The measure.
        resamples: How often its items are drawn again, with replacement; 0 for no interval.
        seed: The seed of the draws.
    """
    low, high = _interval([measure], lambda values: values[0], resamples, seed)
    return Measured(measure.name, _known(measure.value), low, high, measure.n)


def difference(task: str, one: Measure, other: Measure, resamples: int, seed: int) -> Difference:
    """The difference of two measures with its interval. Both measures see the same draws."""
    low, high = _interval([one, other], lambda v: v[0] - v[1], resamples, seed)
    told = None if low is None or high is None else low > _NOTHING or high < -_NOTHING
    a, b = one.value, other.value
    return Difference(task, one.name, _known(a), _known(b), _known(a - b), low, high, told)


def _interval(
    measures: Sequence[Measure],
    joined: Callable[[list[float]], float],
    resamples: int,
    seed: int,
) -> tuple[float | None, float | None]:
    n = measures[0].n
    if not measures[0].resampled or not resamples or n < 2:  # noqa: PLR2004  # one item has no spread
        return None, None
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, n, n) for _ in range(resamples))
    values = np.array([joined([m.of(rows) for m in measures]) for rows in drawn])
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
