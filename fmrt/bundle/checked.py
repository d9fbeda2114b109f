"""Files of a bundle whose content was checked, and that are still the same when they are used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from fmrt.bundle.manifest import FileRecord, Variant
from fmrt.bundle.regular import FIX
from fmrt.errors import BundleCorruptError
from fmrt.system.archive import BundleFile, Member

T = TypeVar("T")
Stamp = tuple[int, ...]


class Checked(NamedTuple):
    """A file, and those that are read with it, all checked against their hashes.

    Attributes:
        path: The file's path.
        stamps: The system's facts about each file's content, without a read.
        records: The manifest's record of each file.
    """

    path: BundleFile
    stamps: Mapping[BundleFile, Stamp]
    records: Mapping[BundleFile, FileRecord]

    @classmethod
    def of(cls, path: BundleFile, records: Mapping[BundleFile, FileRecord]) -> Checked:
        """Check the content of some files, of which ``path`` is the one to use.

        Raises:
            BundleCorruptError: A file is missing or its content is not what was exported.
        """
        stamps = {}
        for file, record in records.items():
            stamps[file] = check_size(file, record)
            _check_hash(file, record)
        return cls(path, stamps, records)

    def use(self, reader: Callable[[BundleFile], T]) -> T:
        """What ``reader`` makes of the file, once it is known that it read what was checked.

        Raises:
            BundleCorruptError: A file changed in between.
        """
        found = reader(self.path)
        for file, stamp in self.stamps.items():
            # A link or a change of its rights changes the stamp and not the content.
            if check_size(file, self.records[file]) != stamp:
                _check_hash(file, self.records[file])
        return found


def place_inside(directory: Path, name: str, *, folder: bool = False) -> Path:
    """Path of a file of a bundle, which may be a link to another place of the bundle alone.

    With ``folder``, of a file to be written: what is there is replaced, and only the folder counts.

    In the cache of huggingface_hub, files are links into the repository's ``blobs``.

    Raises:
        BundleCorruptError: It leads out of the bundle.
    """
    path = directory / name
    real, root = os.path.realpath(path.parent if folder else path), os.path.realpath(directory)
    if Path(real).is_relative_to(root):
        return path
    snapshots = Path(root).parent
    if snapshots.name == "snapshots" and Path(real).parent == snapshots.parent / "blobs":
        return path
    raise BundleCorruptError(
        f"{path} is a link out of the bundle, to {real}; copy the file itself there"
    )


def check_size(path: BundleFile, record: FileRecord | Variant) -> Stamp:
    """Stamp of a file after a look at its kind and its size (no read).

    Raises:
        BundleCorruptError: The file is missing, or its size is not the exported one.
    """
    holder = path.archive.path if isinstance(path, Member) else path
    if not holder.is_file():
        raise BundleCorruptError(f"{holder} is missing; {FIX}")
    status = holder.stat()
    size = path.size if isinstance(path, Member) else status.st_size
    if size != record.size:
        raise BundleCorruptError(
            f"{path} is corrupt: {size:,} bytes, exported with {record.size:,}; {FIX}"
        )
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _check_hash(path: BundleFile, record: FileRecord | Variant) -> None:
    try:
        found = sha256(path)
    except OSError as e:
        raise BundleCorruptError(f"{path} cannot be read: {e.strerror or e}") from e
    if found != record.sha256:
        raise BundleCorruptError(f"{path} is corrupt: its SHA-256 has changed; {FIX}")


def sha256(path: BundleFile) -> str:
    """SHA-256 of a file's content, in hex."""
    if isinstance(path, Member):
        found = hashlib.sha256()
        for part in path.parts():
            found.update(part)
        return found.hexdigest()
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def record_of(path: Path) -> FileRecord:
    """Record of a file as it is now."""
    return FileRecord(sha256(path), path.stat().st_size)
