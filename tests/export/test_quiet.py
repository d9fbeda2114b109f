"""What libraries print is kept off the terminal, without a trace in what all threads share."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from fmrt.errors import TruncationWarning
from fmrt.export.quiet import LIBRARIES, listening, quiet


def state() -> dict[str, Any]:
    return {
        "warnings": (list(warnings.filters), warnings.showwarning),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "logging": logging.root.manager.disable,
        "handlers": [list(logging.getLogger(name).handlers) for name in LIBRARIES],
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "seed": torch.initial_seed(),
    }


def test_threads_that_are_quiet_leave_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    def work(number: int) -> None:
        with quiet() if number % 2 else listening():
            time.sleep(0.001 * (number % 3))
            print("from inside")

    before = state()
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(work, number) for number in range(80)]
        for number in range(20):
            print(f"line {number}")
            time.sleep(0.001)
        for one in done:
            one.result()
    assert state() == before
    assert out.getvalue().splitlines() == [f"line {number}" for number in range(20)]


def test_a_warning_of_ours_is_heard_through_quiet() -> None:
    def warn() -> None:
        warnings.warn("cut", TruncationWarning, stacklevel=1)

    with pytest.warns(TruncationWarning), quiet(), ThreadPoolExecutor(1) as pool:
        pool.submit(warn).result()
