"""Files of a folder, or one file, as records that hold their paths."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fmrt.data._columns import LINE
from fmrt.data._records import Record
from fmrt.data._source import reading, shown
from fmrt.errors import DataError

PATH = "path"


def read_files(
    source: str, extensions: Collection[str], column: str | None, keep: Sequence[str]
) -> Iterator[Record]:
    """Return a record a file below ``source`` with one of ``extensions``, in the order of paths.

    Hidden files and folders are passed over. "path" can be kept: it is relative to ``source``.

    Raises:
        DataError: there is no such file, or an option that a folder cannot follow.
    """
    if column is not None:
        raise DataError(f"{shown(source)} is no table; leave out --column")
    for name in keep:
        if name not in (PATH, LINE):
            raise DataError(f"{shown(source)} has {PATH!r} and {LINE!r} to keep, not {name!r}")
    root = Path(source)
    with reading(source):
        paths = [root] if root.is_file() else files_below(root, extensions)
    if not paths:
        raise DataError(f"{shown(source)} holds no file with {', '.join(sorted(extensions))}")
    base = root.parent if root.is_file() else root
    return (_record(i, path, base, keep) for i, path in enumerate(paths, 1))


def files_below(root: Path, extensions: Collection[str]) -> list[Path]:
    """Files below a folder with one of ``extensions``, sorted; hidden ones are passed over."""
    return sorted(_below(root, extensions))


def _below(root: Path, extensions: Collection[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in extensions:
                yield Path(folder, name)


def _raise(error: OSError) -> None:
    raise error


def _record(number: int, path: Path, base: Path, keep: Sequence[str]) -> Record:
    values = {PATH: path.relative_to(base).as_posix(), LINE: number}
    return Record(number, str(path), {name: values[name] for name in keep})
