"""Warnings that point at the caller's own line, however deep in fmrt they arise."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

HERE = str(Path(__file__).parents[1])


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line that is not fmrt's own."""
    depth, frame = 2, sys._getframe(1)  # what warnings itself counts by
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)
