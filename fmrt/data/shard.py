"""What is known of a complete shard, and what of it can be true."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import FileRecord
from fmrt.data._outputs import shard_formats

_NAME = re.compile(r"shard-\d{5,}(\.lines)?\.(?P<format>\w+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = (1 << 63) - 1


def shard_name(number: int, extension: str) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}{extension}"


def is_shard_name(name: str) -> bool:
    """Whether a job may have written a file of that name."""
    found = _NAME.fullmatch(name)
    return found is not None and found["format"] in shard_formats()


@dataclasses.dataclass(frozen=True)
class Shard:
    """One complete shard.

    Attributes:
        number: The number from 0.
        extension: The extension of its file, with the dot.
        rows: The number of vectors in it.
        records: The number of records of the input that it covers.
        content: The content of its file.
        lines: The content of the file with its line numbers, None for a format that holds them
            itself. Jobs of version 1 did not note it.
    """

    number: int
    extension: str
    rows: int
    records: int
    content: FileRecord
    lines: FileRecord | None

    @property
    def file(self) -> str:
        """Its name in the folder, which is derived and never read from a file."""
        return shard_name(self.number, self.extension)

    @property
    def skipped(self) -> int:
        """Records without a vector."""
        return self.records - self.rows

    @classmethod
    def from_json(cls, values: object, extension: str, version: int) -> Shard:  # JSON
        """The shard of an entry.

        Args:
            values: The values of the entry.
            extension: The extension of the job's shards.
            version: The version of the job's files.

        Raises:
            ValueError: There can be no such shard.
        """
        if not isinstance(values, dict):
            raise ValueError(f"not a shard: {values!r:.80}")  # noqa: TRY004  # of a file's content
        number = whole(values, "number")
        records = whole(values, "records", 1)
        rows = whole(values, "rows", 0, records)
        lined = version > 1 and not shard_formats()[extension[1:]].keeps_columns
        shard = cls(
            number,
            extension,
            rows,
            records,
            _content(values),
            _content(values.get("lines")) if lined else None,
        )
        if values.get("file") != shard.file or values.get("skipped") != shard.skipped:
            raise ValueError(f"shard {number} is said to be {values!r:.120}")
        return shard

    def to_json(self) -> dict[str, Any]:
        """The entry of the shard."""
        return {
            "number": self.number,
            "file": self.file,
            "rows": self.rows,
            "records": self.records,
            "skipped": self.skipped,
            **dataclasses.asdict(self.content),
            "lines": None if self.lines is None else dataclasses.asdict(self.lines),
        }

    def damage(self, folder: Path) -> str | None:
        """Name of a file of the shard that is not in ``folder`` as it was written, if one is not.

        All of the files are read.
        """
        for name, content in self._files():
            path = folder / name
            try:
                whole_file = path.is_file() and record_of(path) == content
            except OSError:
                whole_file = False
            if not whole_file:
                return name
        return None

    def _files(self) -> Iterator[tuple[str, FileRecord]]:
        yield self.file, self.content
        if self.lines is not None:
            yield shard_name(self.number, ".lines.npy"), self.lines


def whole(values: dict[str, Any], key: str, least: int = 0, most: int = _MOST) -> int:
    """A whole number of an entry.

    Raises:
        ValueError: The value is not a whole number, or is out of range.
    """
    value = values.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} is {value!r:.40}")
    return value


def _content(values: object) -> FileRecord:  # JSON
    if not isinstance(values, dict):
        raise ValueError(f"not the content of a file: {values!r:.40}")  # noqa: TRY004
    digest = values.get("sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"sha256 is {digest!r:.80}")
    return FileRecord(digest, whole(values, "size"))
