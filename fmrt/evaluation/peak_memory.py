"""How much memory the process grew by at most, where Linux tells."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Measures what happens inside it.

    Attributes:
        grown: bytes of resident memory at its highest, less those at the start; None where the
            system does not tell.
    """

    def __init__(self) -> None:
        self.grown: int | None = None
        self._start: int | None = None

    def __enter__(self) -> PeakMemory:
        try:
            _bytes("VmRSS")  # on other systems there is no such file, and the rest is left out
            _give_back()
            _REFERENCES.write_text(_RESET_PEAK)
            self._start = _bytes("VmRSS")
        except OSError:
            self._start = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._start is not None:
            self.grown = max(0, (_bytes("VmHWM") or 0) - self._start)


def _give_back() -> None:
    """Give memory that was freed back to the system, so that what is taken next is seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _bytes(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    return None if found is None else int(found[1]) * 1024
