"""Regular files: what else has a name, such as a pipe or a device, may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Paths of pipes and devices that a process has open already, such as a shell's <(command).
OPEN_ALREADY = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def unusual_kind(path: str | Path) -> str | None:
    """What a path is, if no regular file, such as ``a named pipe``; None if it is one.

    Raises:
        OSError: There is nothing of that name, or it cannot be looked at.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a NUL character")
    mode = os.stat(path).st_mode  # noqa: PTH116  # which takes names of any bytes
    for test, kind in _KINDS:
        if test(mode) and not str(path).startswith(OPEN_ALREADY):
            return kind
    return None
