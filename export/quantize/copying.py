"""The directory that variants are added to: the bundle's own, or a copy of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.hub import download_whole
from fmrt.errors import OptionError
from fmrt.system.archive import unpack


def own_copy(bundle: Bundle, out: str | Path | None, say: Callable[[str], None]) -> Path:
    """A directory with the bundle in it that may be written to.

    The hub's cache must not be, and so a bundle of the hub is downloaded next to it.

    Args:
        bundle: A local one, or one of the hub.
        out: A directory that is not there yet; default the local bundle's own, or the name of the
            hub's repository.
        say: A function that takes a line that says where the copy is.

    Raises:
        OptionError: ``out`` is there already.
        BundleNotFoundError: The hub does not give the files.
        OSError: The copy cannot be written.
    """
    repository = bundle.repository
    if out is None:
        if repository is None:
            return bundle.in_directory()
        out = repository.name.rpartition("/")[2]
    target = Path(out)
    if target.exists():
        raise OptionError(f"{target} is there already; give a new directory with --out")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        if bundle.archive is not None:
            unpack(bundle.archive, partial)
        elif repository is None:
            shutil.copytree(bundle.path, partial, symlinks=True)
        else:
            download_whole(repository.name, repository.revision, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"copied {repository or bundle.path} to {target}")
    return target
