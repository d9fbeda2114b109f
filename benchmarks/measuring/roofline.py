"""What matrix multiplication alone would take: the model's FLOPs, and the machine's peak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fmrt.measure.peak import Bound, PeakFlops
from fmrt.system.cores import available_cores

# Rows of a batch of 512 tokens, the scheduler's default.
ROWS = 512


class BeatenBoundError(AssertionError):
    """Work was faster than what bounds it, so the measurement is wrong."""


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


@contextmanager
def encoder_peak(config: Mapping[str, Any], precision: str = "fp32") -> Iterator[PeakFlops]:
    """The kernels of a precision at the shapes of the model's layers, one product on each core.

    That is how the runtime uses the cores. On few cores it is faster than products that are split
    over them.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = [(ROWS, hidden, hidden)] * 4 + [(ROWS, hidden, inner), (ROWS, inner, hidden)]
    peak = PeakFlops(shapes, available_cores(), precision)
    try:
        yield peak
    finally:
        peak.close()


def fraction_of(bound: Bound, flops: float, seconds: float) -> float:
    """The part of a bound that work reaches.

    Raises:
        BeatenBoundError: It is more than the bound.
    """
    fraction = bound.fraction(flops, seconds)
    if problem := bound.problem(fraction):
        raise BeatenBoundError(problem)
    return fraction
