"""What this machine's matrix products could do: numpy's sgemm, one on each core.

It runs in a process of its own, where the BLAS behind numpy is told to use one thread: that is set
before it is loaded, and leaves the caller's alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


class Peak:
    """A process that multiplies when asked.

    Args:
        products: rows, inner size and columns of the products, which take turns.
        cores: products at the same time.
    """

    def __init__(self, products: Sequence[tuple[int, int, int]], cores: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # this Python, our own module
            [sys.executable, "-m", "fmrt.measure.sgemm", str(cores), json.dumps(list(products))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
        )

    def flops_per_second(self) -> float:
        """Over all cores together, for half a second."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101  # for the type checker: both are pipes
        assert stdout is not None  # noqa: S101
        print(file=stdin, flush=True)
        return float(stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
