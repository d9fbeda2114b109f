"""Files that take their name only when they are complete and on the disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fmrt.errors import DataError
from fmrt.words import one_line


@contextmanager
def writing(output: str) -> Iterator[None]:
    """Turn an error of writing ``output`` into a ``DataError``."""
    try:
        yield
    except OSError as e:
        raise DataError(
            f"cannot write {output!r}: {one_line(e)}; free some space there, change its "
            "permissions or write elsewhere"
        ) from e


def target_of(output: str) -> Path:
    """The file that a path, or a link there, leads to.

    Raises:
        DataError: The link leads to itself.
    """
    target = Path(os.path.realpath(output))  # `Path.resolve` fails before Python 3.13
    if target.is_symlink():
        raise DataError(
            f"cannot write {output!r}: it is a link that leads to itself; remove it, or give "
            "another name"
        )
    return target


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system lets one."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def pending_files(folder: Path, key: str = "*") -> list[Path]:
    """Unfinished files in a folder, of one output or of all."""
    return list(folder.glob(f".fmrt-{key}-*.tmp"))


def key_of(target: Path) -> str:
    """What the names of an output's unfinished files have in common.

    ``v.npy``, ``v.lines.npy`` and ``v.npy.json`` are one output. The key is short, so that a name
    with it fits wherever the output's own does.
    """
    name = re.sub(r"\.lines(\.npy)$|(\.\w+)\.json$", r"\1\2", target.name)
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def nothing() -> None:
    """What comes before a file takes its name, by default."""


class PendingFile:
    """A hidden file next to ``output``, open for writing, renamed onto it by ``commit``.

    Args:
        output: Path of the file.
        follow: Whether to write through a symbolic link: write what it points to, and do not
            replace the link.
    """

    def __init__(self, output: str, *, follow: bool = True) -> None:
        self.output = output
        self._target = target_of(output) if follow else Path(output)
        name = f".fmrt-{key_of(self._target)}-{os.urandom(4).hex()}.tmp"
        self._path = self._target.with_name(name)
        with writing(output):
            self.file = self._path.open("xb")  # closed by commit or abort

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Bring the content to the disk, call ``before``, and give the file its name."""
        with writing(self.output):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
        before()
        with writing(self.output):
            self._path.replace(self._target)
            sync_folder(self._target.parent)

    def abort(self) -> None:
        """Remove the file; after ``commit``, do nothing."""
        with suppress(OSError):  # what was still buffered may not fit on a full disk
            self.file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing; a symbolic link of that name is replaced.

    Raises:
        DataError: It cannot be written.
    """
    pending = PendingFile(str(path), follow=False)
    try:
        with writing(pending.output):
            pending.file.write(content)
        pending.commit()
    finally:
        pending.abort()
