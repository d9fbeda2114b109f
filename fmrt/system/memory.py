"""The machine's memory and this process's, where the system tells."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from fmrt.system.cores import CGROUP

_MEMINFO = Path("/proc/meminfo")
_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes; None where the system does not tell it.

    Attributes:
        total: The machine's memory.
        available: The memory that new work can have now.
        limit: The limit of this process's cgroup, if that is less than ``total``.
    """

    total: int | None
    available: int | None = None
    limit: int | None = None


def main_memory() -> Memory:
    """The machine's memory, and what of it this process may have."""
    try:
        text = _MEMINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        if sys.platform == "win32":
            return _windows_memory()
        return Memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    known = {name: 1024 * int(kib) for name, kib in re.findall(r"(\w+):\s+(\d+) kB", text)}
    total = known.get("MemTotal")
    limit = _cgroup_limit()
    held = limit if limit is not None and limit < (total or limit + 1) else None
    return Memory(total, known.get("MemAvailable"), held)


def _cgroup_limit() -> int | None:
    """Bytes that the cgroup allows, of version 2 or 1; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (CGROUP / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        return int(text) if text.strip().isdigit() else None
    return None


def _windows_memory() -> Memory:
    import ctypes  # other systems need none of it

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of sysinfoapi.h."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "available", *"abcde")),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(None)
    return Memory(status.total, status.available)


def peak_memory() -> int | None:
    """Most bytes that were resident in this process; None where the system does not say.

    This is not getrusage's number, which starts at the parent's after a fork.
    """
    return _of_process("VmHWM")


class PeakMemory:
    """Measures how much memory the process grows by at most inside it.

    Attributes:
        grown: bytes of resident memory at its highest, less those at the start; None where the
            system does not tell.
    """

    def __init__(self) -> None:
        self.grown: int | None = None
        self._start: int | None = None

    def __enter__(self) -> PeakMemory:
        if _of_process("VmRSS") is None:
            return self
        _give_back()
        try:
            _REFERENCES.write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            return self
        self._start = _of_process("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self._start is not None:
            self.grown = max(0, (peak_memory() or 0) - self._start)


def _give_back() -> None:
    """Give memory that was freed back to the system, so that what is taken next is seen."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _of_process(name: str) -> int | None:
    """A number of bytes that Linux states of this process."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.M)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024
