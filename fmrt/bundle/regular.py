"""Files of a bundle that are read as a whole: regular ones of a bounded size, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fmrt.errors import BundleCorruptError
from fmrt.system.archive import FLAGS

# What to do about a file of a bundle that is not as it was.
FIX = "copy the bundle again, or export the model again"


def _regular(path: Path) -> int:
    """Open a file, and close it again unless it is a regular one."""
    descriptor = os.open(path, FLAGS)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise BundleCorruptError(f"{path} is not a regular file; {FIX}")


def read_regular(path: Path, most: int) -> bytes:
    """Content of a regular file; no device, FIFO or folder is read, nor more than ``most`` bytes.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such file.
        BundleCorruptError: It is no regular file, too large, or cannot be read.
    """
    try:
        with os.fdopen(_regular(path), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as e:  # a NUL in the path is a ValueError
        if isinstance(e, BundleCorruptError):
            raise
        raise BundleCorruptError(
            f"{path} cannot be read: {getattr(e, 'strerror', None) or e}"
        ) from e
    if len(data) > most:
        raise BundleCorruptError(
            f"{path} is of {status.st_size:,} bytes, and such a file has at most {most:,}; {FIX}"
        )
    return data
