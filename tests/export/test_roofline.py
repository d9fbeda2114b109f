"""No figure of the benchmarks is above what bounds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.roofline import BeatenBoundError, fraction_of
from fmrt.measure.peak import Bound

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_work_that_beats_its_bound_fails() -> None:
    bound = Bound({"numpy": 2e9, "onnxruntime": 4e9})
    assert fraction_of(bound, 3e9, 1.0) == 0.75
    with pytest.raises(BeatenBoundError, match=r"1\.25 of the peak"):
        fraction_of(bound, 5e9, 1.0)


def fractions(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a result whose name says that it is a part of the peak."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from fractions(value, f"{path}/{name}")
    elif isinstance(found, list):
        for value in found:
            yield from fractions(value, path)
    elif "peak_fraction" in path or "/fractions/" in path or "sgemm" in path:
        yield path, found


def test_no_committed_result_is_above_its_bound() -> None:
    files = [*BENCHMARKS.glob("results/*.json"), *BENCHMARKS.glob("peers/*.json")]
    found = [(f.name, *one) for f in files for one in fractions(json.loads(f.read_text()))]
    assert found
    assert not [one for one in found if not 0 < one[2] <= 1]
