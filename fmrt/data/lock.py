"""One process at a time writes an output, and what a killed one left is removed by the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fmrt.errors import DataError
from fmrt.system.whole_file import key_of, pending_files, target_of, writing

_JOB = "job"
_LOCK = ".fmrt-{}.lock"


@contextmanager
def locked_output(output: str) -> Iterator[None]:
    """Keep other processes off an output file until the end of the context, or of this process.

    Raises:
        DataError: Another process writes to it.
    """
    target = target_of(output)
    with _locked(target.parent, output, key_of(target)):
        _remove_abandoned(target.parent)
        yield


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes off a folder until the end of the context, or of this process.

    Raises:
        DataError: Another process writes to it.
    """
    with _locked(folder, str(folder), _JOB):
        _remove_abandoned(folder)
        with writing(str(folder)):
            for path in pending_files(folder):
                if not _lock_of(folder, path.name.split("-")[1]).exists():
                    path.unlink(missing_ok=True)
        yield


@contextmanager
def _locked(folder: Path, shown: str, key: str) -> Iterator[None]:
    """Hold a lock by a file of ``folder``, which is removed at the end."""
    from filelock import FileLock, Timeout  # start-up stays quick

    path = _lock_of(folder, key)
    lock = FileLock(path)
    with writing(shown):
        try:
            lock.acquire(timeout=0)
        except Timeout as e:
            raise DataError(f"another process writes to {shown!r}; wait for its end") from e
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone, and Windows removes no open file
            path.unlink()
        lock.release()


def _remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed: nobody holds their lock."""
    with writing(str(folder)):
        locks = list(folder.glob(_LOCK.format("*")))
    for path in locks:
        key = path.name.split("-")[1].removesuffix(".lock")
        with suppress(DataError), _locked(folder, str(path), key):
            for unfinished in pending_files(folder, key):
                unfinished.unlink(missing_ok=True)


def _lock_of(folder: Path, key: str) -> Path:
    return folder / _LOCK.format(key)
