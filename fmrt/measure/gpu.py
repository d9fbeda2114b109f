"""How busy a GPU is, and how fast it multiplies matrices."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fmrt.measure.peak import Bound
from fmrt.measure.product_graph import product_graph
from fmrt.session import Target
from fmrt.session.product import device_product_runner

SAMPLE_MILLISECONDS = 50
# Rows and columns of a product large enough that its own work is all that is seen.
SIZE = 8192
# Seconds of a turn.
TURN = 0.25


@dataclass
class Busy:
    """Percent of each sampling period in which some kernel ran, as the driver counts it."""

    samples: list[int] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """Mean share of the time, 0 to 1; None where it cannot be had."""
        return statistics.mean(self.samples) / 100 if self.samples else None


@contextlib.contextmanager
def sampled(gpu: str | None) -> Iterator[Busy]:
    """Sample how busy a GPU is while the block runs; nothing where ``nvidia-smi`` is missing.

    Args:
        gpu: The GPU, as ``nvidia-smi --id`` takes it; None for no GPU.
    """
    busy = Busy()
    command = ["nvidia-smi", f"--id={gpu}", f"--loop-ms={SAMPLE_MILLISECONDS}"]
    command += ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        process = None
        if gpu is not None:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    except OSError:  # no such program
        process = None
    try:
        yield busy
    finally:
        if process is not None:
            process.terminate()
            lines = (process.communicate()[0] or "").split()
            busy.samples = [int(line) for line in lines if line.isdigit()]


class DevicePeak:
    """One large product on a GPU, by ONNX Runtime's kernels.

    Args:
        target: The GPU.
        precision: The variant's precision: fp32, or another whose products are as fast as fp16's.
    """

    def __init__(self, target: Target, precision: str) -> None:
        kind = np.float32 if precision == "fp32" else np.float16
        square = np.full((SIZE, SIZE), 1 / SIZE, kind)
        self._name = f"ONNX Runtime, {np.dtype(kind).name} product of {SIZE:,}"
        self._run = device_product_runner(product_graph(square), square, target)
        self._best = 0.0

    @property
    def bound(self) -> Bound:
        """The best of all turns until now."""
        return Bound({self._name: self._best})

    def flops_per_second(self) -> dict[str, float]:
        """The rate of the fastest product of a turn."""
        rate, end = 0.0, time.perf_counter() + TURN
        self._run()
        while time.perf_counter() < end or not rate:
            start = time.perf_counter()
            self._run()
            rate = max(rate, 2.0 * SIZE**3 / (time.perf_counter() - start))
        self._best = max(self._best, rate)
        return {self._name: rate}

    def close(self) -> None:
        """Let go of the product."""
        del self._run
