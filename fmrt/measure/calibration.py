"""Finds the threads and batches that are fastest on this machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from fmrt.bundle.bundle import Bundle
from fmrt.embed_options import EmbedOptions
from fmrt.embedding.engine import Engine
from fmrt.embedding.scheduler import BATCH_TOKENS
from fmrt.embedding.tuning import Tuning, default_query_threads
from fmrt.errors import OptionError
from fmrt.system.cores import available_cores

K = TypeVar("K", bound=Hashable)
BUDGETS = (128, 256, 512, 1024, 2048, 4096)
ROUNDS = 5
# Seconds of one turn, in which a choice embeds as many items as it can do in about that time.
TURN = 0.5
# What is not faster than the default by this much may be noise, and stays as it is.
LEAST_GAIN = 1.02
QUERIES = 30


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What is fastest, and what it was chosen from.

    Attributes:
        tuning: The best tuning.
        measured: The speeds relative to the first, by choice, for each of ``batch_tokens``,
            ``threads`` (workers x threads inside operators) and ``query_threads``.
    """

    tuning: Tuning
    measured: dict[str, dict[str, float]]


def tune(
    bundle: Bundle,
    items: Sequence[object],
    variant: str | None = None,
    modality: str | None = None,
    provider: str = "cpu",
) -> Tuned:
    """Measure where cores compute; choices take turns, and medians are compared.

    Args:
        bundle: The bundle that holds the variant.
        items: The items to measure with; as many are used as fit into a turn.
        variant: A name; default the provider's own fp32 one.
        modality: The modality of the tower; default the only one, or that of texts.
        provider: The provider to measure on.

    Raises:
        OptionError: There are no items.
    """
    if not items:
        raise OptionError("there is nothing to measure with; give a file with items")
    cores = available_cores()
    ways = {(cores, 1): None, (1, cores): None, (2 * cores, 1): None}

    def engine(workers: int, threads: int) -> Engine:
        tuning = Tuning(workers=workers, intra_op_threads=threads, query_threads=1)
        return Engine(bundle, variant, provider, modality, tuning=tuning)

    engines = {way: engine(*way) for way in ways}
    try:
        first = engines[cores, 1]
        few = that_fit(first, items, BATCH_TOKENS)
        budgets = compare({b: runs(first, few, b) for b in (BATCH_TOKENS, *_others(BUDGETS))})
        budget = best(budgets)
        threads = compare({way: runs(e, few, budget) for way, e in engines.items()})
    finally:
        for opened in engines.values():
            opened.close()
    workers, intra = best(threads)
    queries = _queries(engine, few[0], cores)
    measured = {
        "batch_tokens": {str(b): speed for b, speed in budgets.items()},
        "threads": {f"{w} x {t}": speed for (w, t), speed in threads.items()},
        "query_threads": {str(t): speed for t, speed in queries.items()},
    }
    return Tuned(Tuning(budget, workers, intra, best(queries)), measured)


def compare(ways: Mapping[K, Callable[[], object]], rounds: int = ROUNDS) -> dict[K, float]:
    """Speeds relative to the first way: medians of each round's ratio, after one round to warm up.

    Args:
        ways: The ways, which take turns.
        rounds: The number of turns of each way.
    """
    seconds: dict[K, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - start)
    return ratios({way: times[1:] for way, times in seconds.items()})


def ratios(seconds: Mapping[K, Sequence[float]]) -> dict[K, float]:
    """Speeds relative to the first way, medians over the rounds."""
    first = next(iter(seconds.values()))
    return {
        way: statistics.median(a / b for a, b in zip(first, times, strict=True))
        for way, times in seconds.items()
    }


def best(speeds: Mapping[K, float]) -> K:
    """The fastest way; the first if none is faster by more than noise."""
    fastest = max(speeds, key=lambda way: speeds[way])
    return fastest if speeds[fastest] >= LEAST_GAIN else next(iter(speeds))


def _others(budgets: Sequence[int]) -> list[int]:
    return [budget for budget in budgets if budget != BATCH_TOKENS]


def that_fit(engine: Engine, items: Sequence[object], budget: int) -> Sequence[object]:
    """As many items as an engine embeds in a turn, but no fewer than make every worker busy."""
    size = 4 * engine.workers
    while True:
        start = time.perf_counter()
        runs(engine, items[:size], budget)()
        taken = time.perf_counter() - start
        if taken >= TURN or size >= len(items):
            return items[:size]
        size = min(len(items), max(size + 1, int(size * min(4.0, 1.2 * TURN / taken))))


def runs(engine: Engine, items: Sequence[object], budget: int) -> Callable[[], None]:
    """Embeds items in batches of so many positions."""

    def run() -> None:
        for _ in engine.stream(
            items, lambda item: item, EmbedOptions(batch_tokens=budget), all_cores=False
        ):
            pass

    return run


def _queries(engine: Callable[[int, int], Engine], item: object, cores: int) -> dict[int, float]:
    """Speeds of one short item with more and more threads inside the operators."""
    counts = sorted({1, default_query_threads(), cores} | {n for n in (2, 4, 8, 16) if n < cores})
    if isinstance(item, str):
        item = " ".join(item.split()[:10])
    engines = {threads: engine(1, threads) for threads in counts}

    def repeat(one: Engine) -> Callable[[], None]:
        def run() -> None:
            for _ in range(QUERIES):
                one.vectors([item])

        return run

    try:
        return compare({t: repeat(e) for t, e in engines.items()})
    finally:
        for opened in engines.values():
            opened.close()
