"""Files of items, which must be regular ones."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from fmrt.errors import InputError
from fmrt.system.file_kind import unusual_kind


def open_regular(path: str | Path) -> BinaryIO:
    """Open the file of an item.

    Raises:
        InputError: There is none, or it is no regular file, or it cannot be read.
    """
    try:
        kind = unusual_kind(path)
        if kind is not None:
            raise InputError(f"cannot read {str(path)!r}: it is {kind}, not a file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise InputError(f"cannot read {str(path)!r}: no such file") from None
    except (OSError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"cannot read {str(path)!r}: {getattr(e, 'strerror', None) or e}") from e
