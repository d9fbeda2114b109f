"""Where the time of a bundle's items goes: ``python -m benchmarks.scripts.stages BUNDLE FILE...``.

The stages are the loading of an item (reading, decoding, resizing), its features (normalization,
filling the batch) and the graph, whose operators are told apart by ONNX Runtime's profile. All is
the CPU time of one thread, the median of some rounds: what other processes do disturbs that least.
A file with the suffix ``.txt`` has a text in each line.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import fmrt
from benchmarks.measuring.turns import session
from fmrt.embedding.scheduler import plan_batches
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.session.flops import is_node, profile

ROUNDS = 5
LEAST_SHOWN = 0.01


def stages(bundle: str, items: Sequence[str]) -> tuple[dict[str, float], Counter[str]]:
    """Seconds of CPU time for each stage and item, and microseconds of each kind of operator."""
    with fmrt.Embedder(bundle, workers=1) as embedder:
        engine = embedder._engine(embedder.bundle.manifest.modalities[0], ())
        path = embedder.bundle.graph(engine.variant)
        output, preprocess = engine.tower.embedding_output, engine.preprocess
        loaded = [preprocess.load(item) for item in items]
        encoded = preprocess.encode(loaded, "", "truncate")
        batches = plan_batches(encoded.lengths, engine.batch_tokens, longest_padded=None)
        constants = preprocess.constants("")
        feeds = [{**encoded.feeds(rows), **constants} for rows in batches]

        def features() -> None:
            again = preprocess.encode(loaded, "", "truncate")
            for rows in batches:
                again.feeds(rows)

        model = session(path, SLOW_CPU_FUSIONS)
        ways: dict[str, Callable[[], object]] = {
            "loading": lambda: [preprocess.load(item) for item in items],
            "features": features,
            "graph": lambda: [model.run([output], feed) for feed in feeds],
        }
        seconds = {name: _median(way) / len(items) for name, way in ways.items()}
        return seconds, _operators(path, output, feeds)


def _median(way: Callable[[], object]) -> float:
    way()
    seconds = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        way()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def _operators(path: Path, output: str, feeds: Sequence[dict[str, np.ndarray]]) -> Counter[str]:
    """Microseconds by the operator, from the profile."""
    found: Counter[str] = Counter()
    for event in filter(is_node, profile(path, output, feeds)):
        found[event["args"]["op_name"]] += event["dur"]
    return found


def main(bundle: str, *files: str) -> None:
    """Print the stages and the operators with their parts."""
    items = [line for f in files if f.endswith(".txt") for line in Path(f).read_text().splitlines()]
    seconds, operators = stages(bundle, items or files)
    whole = sum(seconds.values())
    for name, value in seconds.items():
        print(f"{name:>10} {value * 1e3:8.2f} ms/item {value / whole:6.3f}")
    for name, value in operators.most_common():
        if value >= LEAST_SHOWN * operators.total():
            print(f"{name:>24} {value / operators.total():6.3f} of the graph")


if __name__ == "__main__":
    main(*sys.argv[1:])
