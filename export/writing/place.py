"""Where a bundle is written: it takes its name only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmrt.bundle.manifest import MANIFEST_FILE
from fmrt.errors import ExportError, OptionError


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse, before any work, a target that would be an error at its end.

    Raises:
        OptionError: Something else is there, or a bundle that may not be replaced.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise OptionError(f"{target} is a file; give a directory")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST_FILE).is_file():
        raise OptionError(f"{target} is not empty and not a bundle; give another directory")
    if not overwrite:
        raise OptionError(f"{target} holds a bundle; say --overwrite or give another directory")


@contextmanager
def placed(target: Path) -> Iterator[Path]:
    """A new directory to write to, which takes the target's name if the body ends well.

    Raises:
        ExportError: It cannot be written.
    """
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        _put_in_place(partial, target)
    except OSError as e:
        raise ExportError(f"cannot write {target}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename onto the target; a bundle there is moved aside first and put back on failure."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f"{target.name}.old-{os.getpid()}")
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
