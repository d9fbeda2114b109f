"""The real model and a corpus of natural-length English, shared by the benchmarks."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fmrt
from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.minilm import MODEL
from fmrt.machine import describe


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add to a suite's results what decides which kernels run."""
    machine = describe()
    machine_info["kernels"] = {
        "cores": machine.cores,
        "instruction_sets": machine.instruction_sets,
        "environment": machine.environment,
        "packages": {n: v for n, v in machine.packages.items() if v is not None},
    }


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh export of all-MiniLM-L6-v2, or the one that FMRT_BENCH_BUNDLE names."""
    if there := os.environ.get("FMRT_BENCH_BUNDLE"):
        return Path(there)
    out = tmp_path_factory.mktemp("benchmarks") / "minilm"
    fmrt.export_model(MODEL, out)
    return out


@pytest.fixture(scope="session")
def embedder(bundle: Path) -> Iterator[fmrt.Embedder]:
    """The bundle in the runtime, with its defaults."""
    with fmrt.Embedder(bundle) as opened:
        yield opened


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """1,000 docstrings in a shuffled, fixed order."""
    texts = list(docstrings())
    random.Random(0).shuffle(texts)
    return texts[:1000]
