"""What matrix multiplication alone would take: the model's FLOPs, and the machine's sgemm."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fmrt.system.cores import available_cores

# Rows of a batch of 512 tokens, the scheduler's default.
ROWS = 512


def encoder_flops(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Multiply-add FLOPs of a BERT-like encoder's matrix products over texts without padding.

    A layer of hidden size h and feed-forward size f does, a token, 2 (4 h^2 + 2 h f) FLOPs in its
    six projections, and 4 n h in attention over n tokens (Kaplan et al., arXiv:2001.08361, table 1,
    with the attention's second product counted too).
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tokens = float(sum(lengths))
    pairs = float(sum(n * n for n in lengths))
    projections = 2 * (4 * hidden**2 + 2 * hidden * inner) * tokens
    return float(config["num_hidden_layers"]) * (projections + 4 * hidden * pairs)


def sgemm_flops_per_second(config: Mapping[str, Any], seconds: float = 0.5) -> float:
    """FLOP/s of numpy's sgemm at the shapes of the model's layers, one product per core.

    That is how the runtime uses the cores, and on few cores it is faster than products that are
    split over them.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]
    operands = [
        (
            np.ones((ROWS, k), np.float32),
            np.ones((k, n), np.float32),
            np.empty((ROWS, n), np.float32),
        )
        for k, n in shapes
    ]
    layer = 2.0 * ROWS * sum(k * n for k, n in shapes)

    def work(deadline: float) -> int:
        done = 0
        while time.perf_counter() < deadline:
            for a, b, out in operands:
                np.matmul(a, b, out=out)
            done += 1
        return done

    return layer * _on_every_core(work, seconds)


def _on_every_core(work: Callable[[float], int], seconds: float) -> float:
    """Calls per second, over all cores together."""
    cores = available_cores()
    with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        start = time.perf_counter()
        counts = list(pool.map(work, [start + seconds] * cores))
        return sum(counts) / (time.perf_counter() - start)
