"""Where fmrt keeps what it may lose: one directory a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "FMRT_CACHE"


def cache_directory() -> Path:
    """The environment's ``FMRT_CACHE``, else ``fmrt`` in the platform's cache directory.

    That is ``$XDG_CACHE_HOME`` or ``~/.cache``; on macOS ``~/Library/Caches``; on Windows
    ``%LOCALAPPDATA%``. It is not created here.
    """
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else _platform_cache() / "fmrt"


def _platform_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
