"""``python -m benchmarks.scripts.query BUNDLE``: the speeds of ways to embed one short text."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fmrt
from benchmarks.measuring.turns import session
from fmrt.measure.calibration import ratios
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.system.cores import available_cores
from fmrt.system.huge_pages import huge_pages

QUERY = "how do I read a file line by line"
ROUNDS = 50
REPEATS = 20
# Threads inside operators go on spinning for some 40 ms.
PAUSE = 0.06


def main(bundle: str) -> None:
    """Print the ratios to the first way as JSON."""
    file, cores = Path(bundle) / "onnx/model_cpu.onnx", available_cores()
    with huge_pages():
        huge = session(file, SLOW_CPU_FUSIONS, cores)
    one, small = session(file, SLOW_CPU_FUSIONS), session(file, SLOW_CPU_FUSIONS, cores)
    with fmrt.Embedder(bundle, verify=False) as embedder:
        for _ in range(3):
            embedder.embed([QUERY])
        engine = embedder._engine("text", ())
        engine.wait()
        encoded = engine.preprocess.encode([QUERY], "", "truncate").feeds(np.zeros(1, np.int64))
        feeds = {i.name: encoded[i.name] for i in one.get_inputs()}
        ways: dict[str, Callable[[], object]] = {
            "one thread": lambda: one.run(["sentence_embedding"], feeds),
            "all cores": lambda: small.run(["sentence_embedding"], feeds),
            "all cores, weights in huge pages": lambda: huge.run(["sentence_embedding"], feeds),
            "Engine.stream": lambda: list(engine.stream([QUERY], lambda text: text)),
            "Embedder.embed": lambda: embedder.embed([QUERY]),
        }
        print(json.dumps(ratios(medians(ways))))


def medians(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Median seconds of each way in every round; each round has an order of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(0)
    for _ in range(ROUNDS):
        for name in order.sample(list(ways), len(ways)):
            time.sleep(PAUSE)
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                ways[name]()
                times.append(time.perf_counter() - start)
            seconds[name].append(statistics.median(times))
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
