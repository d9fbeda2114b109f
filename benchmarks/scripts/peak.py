"""MiB that one text takes: ``python -m benchmarks.scripts.peak GRAPH LENGTH``."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil

from benchmarks.measuring.turns import session
from fmrt.session import SLOW_CPU_FUSIONS

MEBIBYTES = 1 << 20
# Between looks at the resident size.
SECONDS = 0.002


def main(graph: str, length: str) -> None:
    """Print how far the resident size rises over that of the loaded graph."""
    model = session(graph, SLOW_CPU_FUSIONS)
    shape = (1, int(length))
    feeds = {i.name: np.ones(shape, np.int64) for i in model.get_inputs()}
    print(rise(lambda: model.run(["sentence_embedding"], feeds)) / MEBIBYTES)


def rise(work: Callable[[], object]) -> int:
    """Bytes by which the resident size rises at most while ``work`` runs."""
    process, thread = psutil.Process(), threading.Thread(target=work)
    before = largest = process.memory_info().rss
    thread.start()
    while thread.is_alive():
        largest = max(largest, process.memory_info().rss)
        time.sleep(SECONDS)
    return largest - before


if __name__ == "__main__":
    main(*sys.argv[1:])
