"""The files that describe a job: sealed JSON, and the index of one that is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmrt.data._outputs import shard_formats
from fmrt.data.shard import Shard
from fmrt.errors import DataError
from fmrt.words import one_line, shown

INDEX = "index.json"
# Version 1 had no seals, and no content of the files with line numbers.
VERSION = 2
_SEAL = "seal"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and a checksum over them that `opened` compares."""
    return {**values, _SEAL: _seal(values)}


def opened(values: object) -> dict[str, Any]:  # JSON
    """The values of `sealed`.

    Raises:
        ValueError: They are not as they were written.
    """
    if not isinstance(values, dict):
        raise ValueError(f"not an object: {values!r:.40}")  # noqa: TRY004  # of a file's content
    found = dict(values)
    if found.pop(_SEAL, None) != _seal(found):
        raise ValueError(f"it has changed since it was written: {values!r:.60}")
    return found


def _seal(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Index:
    """What ``index.json`` says of a complete job.

    Attributes:
        version: The version of the file.
        settings: The settings that the vectors were made with.
        shards: The shards in order, without a gap.
        rows: The number of vectors in all.
        provenance: The provenance of the vectors, None in a job of version 1.
    """

    version: int
    settings: dict[str, Any]
    shards: tuple[Shard, ...]
    rows: int
    provenance: dict[str, Any] | None


def read_index(folder: str) -> Index:
    """Read the index of a complete job.

    Raises:
        DataError: There is no index, or it is not as it was written.
    """
    path = Path(folder, INDEX)
    if not path.exists():
        raise DataError(
            f"{shown(folder)} is no complete job of fmrt embed: it has no {INDEX}; repeat the "
            "command that began it"
        )
    with reading_job(path):
        return _index(json.loads(read_regular(path)))


def extension_of(settings: Mapping[str, Any]) -> str:
    """Extension of a job's shards.

    Raises:
        ValueError: The index has an unknown extension.
    """
    name = settings.get("shard_format")
    if not isinstance(name, str) or name not in shard_formats():
        raise ValueError(f"shard_format is {name!r:.40}")
    return f".{name}"


def version_of(head: object) -> int:  # JSON
    """Version of a job's file, of which this is the beginning.

    Raises:
        ValueError: Another fmrt wrote it.
    """
    version = head.get("version") if isinstance(head, dict) else None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"version {version!r:.40}, and this fmrt reads 1 to {VERSION}")
    return version


def read_regular(path: Path) -> bytes:
    """Content of a file that is no pipe or device, which might never end.

    Raises:
        OSError: It cannot be read.
        ValueError: It is something else.
    """
    if not path.is_file():
        raise ValueError("it is not a regular file")
    return path.read_bytes()


@contextmanager
def reading_job(path: Path) -> Iterator[None]:
    """Turn an error of reading a job's file into a ``DataError``."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise DataError(
            f"cannot read {str(path)!r}: {one_line(e)}; fmrt embed --overwrite starts over"
        ) from e


def _index(values: Any) -> Index:  # noqa: ANN401  # JSON
    version = version_of(values)
    values = opened(values) if version > 1 else values
    settings = dict(values["settings"])
    extension = extension_of(settings)
    shards = tuple(Shard.from_json(entry, extension, version) for entry in values["shards"])
    if not shards or [shard.number for shard in shards] != list(range(len(shards))):
        raise ValueError("it names no shards, or not each one once and in order")
    rows = sum(shard.rows for shard in shards)
    if values["rows"] != rows:
        raise ValueError(f"rows is {values['rows']!r:.40}, and its shards have {rows}")
    return Index(version, settings, shards, rows, values.get("provenance"))
