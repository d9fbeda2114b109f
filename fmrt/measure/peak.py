"""What this machine's matrix products could do: the best of several kernels, one on each core.

They run in a process of their own. There a BLAS is told to use one thread, and variables that hold
kernels back are taken out of the environment: `OPENBLAS_CORETYPE=Haswell`, for one, halves NumPy's
speed on a processor with AVX-512. Both must be set before the libraries are loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, cast

from fmrt.machine import KERNEL_VARIABLES

PROGRAM = ("-m", "fmrt.measure.kernels")
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Bound:
    """What the fastest kernel reached in its best turn.

    Attributes:
        kernels: The FLOP/s of each kernel in its best turn, over all cores together; there are one
            or more.
    """

    kernels: Mapping[str, float]

    @property
    def kernel(self) -> str:
        """The name of the fastest kernel."""
        return max(self.kernels, key=self.kernels.__getitem__)

    @property
    def flops_per_second(self) -> float:
        """The speed of the fastest kernel."""
        return self.kernels[self.kernel]

    def fraction(self, flops: float, seconds: float) -> float:
        """The part of the bound that work reaches.

        Args:
            flops: The FLOPs of the work.
            seconds: The time that it took.
        """
        return flops / seconds / self.flops_per_second

    def problem(self, fraction: float) -> str | None:
        """Why this is no bound, when work reached more than it; None when it is one."""
        if fraction <= 1:
            return None
        return (
            f"the model ran at {fraction:.2f} of the peak, which is therefore no bound: the "
            "machine was disturbed while it was measured; measure again"
        )


class PeakFlops:
    """A process that multiplies when asked.

    Args:
        products: The rows, inner size and columns of the products, which take turns.
        cores: The number of products at the same time.
        precision: The precision, ``fp32``, ``bf16`` or ``int8``.
    """

    def __init__(
        self, products: Sequence[tuple[int, int, int]], cores: int, precision: str = "fp32"
    ) -> None:
        free = {k: v for k, v in os.environ.items() if k not in KERNEL_VARIABLES}
        arguments = str(cores), precision, json.dumps(list(products))
        self._process = subprocess.Popen(  # noqa: S603  # this Python, our own module
            [sys.executable, *PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**free, **dict.fromkeys(ONE_THREAD, "1")},
        )
        self._names: list[str] = json.loads(self._line())
        self._best: dict[str, float] = {}

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels that take turns."""
        return self._names

    @property
    def bound(self) -> Bound:
        """The best of all turns until now; before the first, nothing is known."""
        return Bound(dict(self._best))

    def flops_per_second(self) -> dict[str, float]:
        """The rate of each kernel over all cores together; each runs for a quarter second."""
        print(file=self._process.stdin, flush=True)
        rates: dict[str, float] = json.loads(self._line())
        self._best = {name: max(rate, self._best.get(name, 0.0)) for name, rate in rates.items()}
        return rates

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        return cast("IO[str]", self._process.stdout).readline()
