"""Which CPU this is, and how many of its cores this process may use: affinity and cgroup quota."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Cores this process may keep busy, at least 1.

    The smaller of the CPU affinity mask and the cgroup CPU quota (v2 ``cpu.max``, v1
    ``cpu.cfs_quota_us``), rounded up: a quota of 1.5 cores keeps two threads useful.
    """
    quota = cgroup_quota()
    cores = _affinity()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    name = re.search(r"^model name\s*:(.*)$", _cpuinfo() or "", re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def cpu_flags() -> set[str] | None:
    """Linux's names of what the processor can do; None on other systems."""
    text = _cpuinfo()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text or "", re.MULTILINE)
    return None if text is None else set(flags[1].split() if flags else ())


def _cpuinfo() -> str | None:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def cgroup_quota() -> float | None:
    """Cores that this process's cgroup allows, or None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (CGROUP / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (CGROUP / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max" (v2) and "-1" (v1) mean no limit
    return int(quota) / int(period)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
