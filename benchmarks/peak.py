"""``python -m benchmarks.peak GRAPH LENGTH``: MiB that one text takes while it is embedded."""

from __future__ import annotations

import resource
import sys

import numpy as np

from benchmarks.turns import session
from fmrt.session import SLOW_CPU_FUSIONS

KIBIBYTES = 1024


def main(graph: str, length: str) -> None:
    """Print the growth of the largest resident size by one run."""
    model = session(graph, SLOW_CPU_FUSIONS)
    shape = (1, int(length))
    feeds = {i.name: np.ones(shape, np.int64) for i in model.get_inputs()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.run(["sentence_embedding"], feeds)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / KIBIBYTES)


if __name__ == "__main__":
    main(*sys.argv[1:])
