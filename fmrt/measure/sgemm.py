"""numpy's matrix products on every core; `fmrt.measure.peak` starts it as a process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SECONDS = 0.5


def main(cores: int, products: Sequence[tuple[int, int, int]]) -> None:
    """Answer each line on standard input with FLOP/s."""
    operands = [(np.ones((m, k), np.float32), np.ones((k, n), np.float32)) for m, k, n in products]
    flops = 2.0 * sum(m * k * n for m, k, n in products)

    def work(deadline: float) -> int:
        outs = [np.empty((m, n), np.float32) for m, _, n in products]
        done = 0
        while time.perf_counter() < deadline:
            for (a, b), out in zip(operands, outs, strict=True):
                np.matmul(a, b, out=out)
            done += 1
        return done

    with ThreadPoolExecutor(cores) as pool:
        for _ in sys.stdin:
            start = time.perf_counter()
            rounds = sum(pool.map(work, [start + SECONDS] * cores))
            print(rounds * flops / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
