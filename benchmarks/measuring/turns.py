"""Graphs taking turns on the same batches, one worker per core."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from fmrt.measure.calibration import ratios

ROUNDS = 9
Feeds = list[dict[str, np.ndarray]]


def session(model: bytes | str | Path, disabled: list[str] | None, threads: int = 1) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )


def run(model: Any, feeds: Feeds, workers: int, output: str = "sentence_embedding") -> None:
    """Run all batches with threads that take the next one in turn."""
    waiting, lock = iter(feeds), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                feed = next(waiting, None)
            if feed is None:
                return
            model.run([output], feed)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def compare(benchmark: Any, ways: Mapping[str, Callable[[], None]], rounds: int = ROUNDS) -> None:
    """Let the ways take turns, each round from another on; ratios to the first are medians."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = deque(ways)

    def turn() -> None:
        for name in order:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
        order.rotate()

    benchmark.pedantic(turn, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["ratios"] = ratios({n: times[-rounds:] for n, times in seconds.items()})


def as_bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()
