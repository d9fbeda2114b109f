"""Budgets of attacks, and the tiny bundle of the runtime's tests."""

from __future__ import annotations

import os

import pytest

from tests.attack.fuzz import Budget
from tests.runtime.conftest import tiny_bundle

__all__ = ["tiny_bundle"]

# Seconds of an attack: in every run of the tests, and in those of the slow ones.
QUICK, LONG = 3.0, 60.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A short and a long run of every attack, or one as the environment says."""
    if "budget" not in metafunc.fixturenames:
        return
    runs = [pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
    if "FMRT_ATTACK_SECONDS" in os.environ:
        runs = [pytest.param(0.0, id="attack")]
    budgets = [
        pytest.param(Budget.from_environment(run.values[0]), id=run.id, marks=run.marks)
        for run in runs
    ]
    metafunc.parametrize("budget", budgets)
