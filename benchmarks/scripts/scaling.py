"""How busy the scheduler keeps many cores: ``python -m benchmarks.scripts.scaling``.

A simulation: the batches are those that the runtime plans for docstrings, a batch takes a time in
proportion to its tokens with padding, plus what any batch costs, and each core takes the next batch
when it is free. What cores share, such as memory and clock, is left out: docs/performance.md.
"""

from __future__ import annotations

import heapq
import random

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.corpus import docstrings
from fmrt.embedding.scheduler import BATCH_COST, BATCH_TOKENS, WINDOW_ITEMS, plan_batches

CORES = (1, 2, 8, 16, 32, 64, 128)
TEXTS = (256, 1000, 8192, 65536)
MOST_TOKENS = 256


def lengths(count: int) -> NDArray[np.int64]:
    """Tokens of docstrings, by their words; a docstring comes again where there are too few."""
    rng = random.Random(0)
    texts = rng.choices(docstrings(), k=count)
    return np.array([min(MOST_TOKENS, 2 + len(text.split()) * 4 // 3) for text in texts])


def busy(tokens: NDArray[np.int64], cores: int, budget: int = BATCH_TOKENS) -> float:
    """The part of all cores' time in which they compute tokens that are no padding.

    Args:
        tokens: The lengths of the texts, int64 ``[n]``.
        cores: The cores, with a worker each.
        budget: Most tokens of a batch.
    """
    free = [0.0] * cores
    for start in range(0, len(tokens), WINDOW_ITEMS):
        window = tokens[start : start + WINDOW_ITEMS]
        for rows in plan_batches(window, budget, workers=cores):
            cost = len(rows) * int(window[rows].max()) + BATCH_COST * budget
            heapq.heapreplace(free, free[0] + cost)
    return float(tokens.sum()) / (cores * max(free))


def main() -> None:
    """Print the part for each number of cores and of texts."""
    print(f"{'cores':>6}", *(f"{count:>8,}" for count in TEXTS))
    for cores in CORES:
        print(f"{cores:>6}", *(f"{busy(lengths(count), cores):>8.2f}" for count in TEXTS))


if __name__ == "__main__":
    main()
