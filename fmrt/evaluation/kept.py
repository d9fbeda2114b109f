"""Whether a variant keeps what fp32 reaches on a data set, for ``fmrt quantize --evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Evaluated, EvaluatedMeasure
from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.dataset import Dataset
from fmrt.evaluation.load import load_dataset
from fmrt.evaluation.measures import Difference
from fmrt.evaluation.run import evaluate

# Measures that need no labels say nothing of quality by themselves.
_CHECKS = "checks"
# It takes a bundle, a variant, the one that it is compared with, and the provider of both.
Judge = Callable[[Bundle, str, str, str], Evaluated]


def judge(bundle: Bundle, data: str | Path | Dataset, tolerance: float) -> Judge:
    """Make a function that compares a variant with fp32 on a data set.

    A measure is kept if its difference from fp32 is at least ``-tolerance``, or cannot be told from
    zero (95%, paired).

    Args:
        bundle: The bundle whose variants are compared.
        data: The data set, as `fmrt.evaluate` takes it.
        tolerance: The largest loss of a measure that is accepted in any case, from 0 to 1.

    Raises:
        OptionError: ``tolerance`` is not from 0 to 1.
        DataError: The data set cannot be used.
        InputError: One of its records cannot be used.
    """
    if not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
        raise OptionError(f"tolerance={quoted(tolerance)}; give a number from 0 to 1")

    known = load_dataset(data, bundle.manifest.modalities)

    def judged(bundle: Bundle, variant: str, base: str, provider: str) -> Evaluated:
        found = evaluate(bundle, known, variants=[variant], against=base, provider=provider)
        against = found.models[0].against
        differences = () if against is None else against.differences
        measures = tuple(
            _recorded(d, tolerance)
            for d in differences
            if d.task != _CHECKS and d.difference is not None
        )
        if not measures:
            reasons = "; ".join(dict.fromkeys(found.skipped.values()))
            raise DataError(f"{known.name!r} tells nothing of the quality of vectors: {reasons}")
        return Evaluated(known.name, str(found.data["sha256"]), float(tolerance), measures)

    return judged


def _recorded(found: Difference, tolerance: float) -> EvaluatedMeasure:
    value, other = found.value, found.other
    assert value is not None  # noqa: S101  # as the difference is known
    assert other is not None  # noqa: S101
    kept = value - other >= -tolerance or found.told is False
    return EvaluatedMeasure(found.task, found.name, value, other, found.low, found.high, kept)
