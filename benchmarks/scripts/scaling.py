"""How busy the scheduler keeps many cores: ``python -m benchmarks.scripts.scaling [BUNDLE]``.

A simulation: the batches are those that the runtime plans for docstrings, a batch takes a time in
proportion to its tokens with padding, plus what any batch costs, and each core takes the next batch
when it is free. What cores share, such as memory and clock, is left out: docs/performance.md.

With a bundle, it measures too: processes that `taskset` holds to one core, two and so on, up to
those of the machine, take turns on the same texts.
"""

from __future__ import annotations

import heapq
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import fmrt
from benchmarks.measuring.corpus import docstrings
from fmrt.embedding.scheduler import BATCH_COST, BATCH_TOKENS, WINDOW_ITEMS, plan_batches

CORES = (1, 2, 8, 16, 32, 64, 128)
TEXTS = (256, 1000, 8192, 65536)
MOST_TOKENS = 256
MEASURED_TEXTS, ROUNDS = 150, 3
# Second argument of a process that measures itself.
ALONE = "alone"
MODULE = "benchmarks.scripts.scaling"


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


def measured(bundle: str) -> dict[int, list[tuple[float, float]]]:
    """Texts per second and milliseconds of CPU time per text, by the cores of the process."""
    there = sorted(os.sched_getaffinity(0))
    counts = [count for count in CORES if count <= len(there)]
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            cores = ",".join(str(core) for core in there[:count])
            command = ["taskset", "-c", cores, sys.executable, "-m", MODULE, bundle, ALONE]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            speed, cpu = done.stdout.split()
            found[count].append((float(speed), float(cpu)))
    return found


def alone(bundle: str) -> tuple[float, float]:
    """The same of this process, after one call to warm up."""
    texts = random.Random(0).choices(docstrings(), k=MEASURED_TEXTS)
    with fmrt.Embedder(bundle) as embedder:
        embedder.embed(texts, on_too_long="truncate")
        start, used = time.perf_counter(), time.process_time()
        embedder.embed(texts, on_too_long="truncate")
        seconds, used = time.perf_counter() - start, time.process_time() - used
    return len(texts) / seconds, used / len(texts) * 1e3


def main(arguments: Sequence[str]) -> None:
    """Print the part for each number of cores and of texts, and what was measured."""
    bundle, which = (*arguments, "", "")[:2]
    if which == ALONE:
        print(*alone(bundle))
        return
    print(f"{'cores':>6}", *(f"{count:>8,}" for count in TEXTS))
    for cores in CORES:
        print(f"{cores:>6}", *(f"{busy(lengths(count), cores):>8.2f}" for count in TEXTS))
    if bundle:
        for count, rounds in measured(bundle).items():
            speed, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"{count:>6} measured: {speed:,.1f} texts/s, {cpu:.2f} ms of CPU time per text")


if __name__ == "__main__":
    main(sys.argv[1:])
