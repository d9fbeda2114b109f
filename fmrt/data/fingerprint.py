"""What tells an input from another: its content, not where it is or when it was written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fmrt.data._folder import list_files
from fmrt.data._media import MEDIA, Media
from fmrt.data._source import check_source, reading
from fmrt.errors import DataError
from fmrt.words import STDIN, shown


class Fingerprint:
    """Name and content of an input that can be read again.

    A file's content is its SHA-256; a folder's that of the paths, sizes and times of its files.

    Args:
        source: A path.
        modality: The modality of the files that a folder is searched for.

    Attributes:
        name: The last part of the path.
        size: The number of bytes, or of files of a folder.
        sha256: The SHA-256 of the content.

    Raises:
        DataError: It is standard input, or cannot be read.
    """

    def __init__(self, source: str, modality: str = "text") -> None:
        if source == STDIN:
            raise DataError(
                "standard input cannot be read again, as a job that goes on must: give a file"
            )
        self._path = Path(source)
        self._source = source
        self.name = self._path.resolve().name
        if self._path.is_dir() and modality in MEDIA:
            self.size, self.sha256 = self._of_folder(MEDIA[modality])
            self._seen = None
        else:
            check_source(source)
            self._seen = self._state()
            with reading(source), self._path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.size = self._seen[0]

    def check(self) -> None:
        """Raise if a file has been written to since its content was hashed.

        Raises:
            DataError: The file has been written to.
        """
        if self._seen is not None and self._state() != self._seen:
            raise DataError(f"{shown(self._source)} has changed while it was read")

    def _state(self) -> tuple[int, int]:
        with reading(self._source):
            status = self._path.stat()
        return status.st_size, status.st_mtime_ns

    def _of_folder(self, media: Media) -> tuple[int, str]:
        digest = hashlib.sha256()
        paths = list_files(self._path, media).paths
        with reading(self._source):
            for path in paths:
                status = _status(path)
                name = path.relative_to(self._path).as_posix()
                facts = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
                digest.update(facts.encode(errors="surrogateescape"))  # a name may be any bytes
        return len(paths), digest.hexdigest()


def _status(path: Path) -> os.stat_result:
    """The status of a file, or of a link to nothing, which is an error only when its turn comes."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()
