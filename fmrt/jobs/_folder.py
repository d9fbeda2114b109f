"""The folder of a job: its lock, its journal, and the index that takes the journal's place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from fmrt.data._embeddings import INDEX
from fmrt.data._pending import PendingFile, remove_pending, sync_folder, writing
from fmrt.data._source import one_line
from fmrt.errors import DataError
from fmrt.jobs._shard import Shard

JOURNAL = "journal.jsonl"
VERSION = 1
# Names that belong to a job; anything else in the folder is left alone.
OURS = (JOURNAL, INDEX, "shard-*.npy", "shard-*.parquet")


class Folder:
    """A job's folder, which one process at a time may have; made by `opened`.

    Attributes:
        path: of the folder.
        settings: of the job that is there, or None.
        shards: complete ones, by number.
        complete: whether the job is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] | None = None
        self.shards: dict[int, Shard] = {}
        self.complete = (path / INDEX).exists()
        if self.complete:
            self._read_index()
        elif (path / JOURNAL).exists():
            self._read_journal()

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, overwrite: bool) -> Iterator[Folder]:
        """Lock the folder, which is made if need be, and read what is there.

        Args:
            path: of the folder.
            overwrite: whether to remove a job that is there.

        Raises:
            DataError: there can be no such folder, another process has it, or it holds shards
                without a journal.
        """
        new = not path.exists()
        with writing(str(path)):
            path.mkdir(exist_ok=True)
        with _locked(path), _removed_if_empty(path) if new else nullcontext():
            remove_pending(path)
            if overwrite:
                _remove_all(path)
            folder = cls(path)
            if folder.settings is None and (found := _ours(path)):
                raise DataError(
                    f"{str(path)!r} holds {found[0].name!r} and no journal: give another folder, "
                    "or say --overwrite"
                )
            yield folder

    @property
    def rows(self) -> int:
        """Vectors in complete shards."""
        return sum(shard.rows for shard in self.shards.values())

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the journal's head, before any shard of a new job; of an old one, do nothing."""
        if self.settings is None:
            self.settings = dict(settings)
            self._put(JOURNAL, _line({"version": VERSION, "settings": self.settings}))

    def add(self, shard: Shard) -> None:
        """Note a complete shard; it counts from now on."""
        with writing(str(self.path / JOURNAL)), (self.path / JOURNAL).open("ab") as file:
            file.write(_line(shard.to_json()))
            file.flush()
            os.fsync(file.fileno())
        self.shards[shard.number] = shard

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the index in place of the journal.

        Args:
            facts: about all vectors.
        """
        shards = [self.shards[number] for number in sorted(self.shards)]
        index = {
            "version": VERSION,
            "rows": self.rows,
            **facts,
            "records": sum(shard.records for shard in shards),
            "skipped": sum(shard.skipped for shard in shards),
            "settings": self.settings,
            "shards": [shard.to_json() for shard in shards],
        }
        self._put(INDEX, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
        self._drop_journal()
        self.complete = True

    def _put(self, name: str, content: bytes) -> None:
        pending = PendingFile(str(self.path / name))
        try:
            with writing(pending.output):
                pending.file.write(content)
            pending.commit()
        finally:
            pending.abort()

    def _drop_journal(self) -> None:
        with writing(str(self.path)):
            (self.path / JOURNAL).unlink(missing_ok=True)
            sync_folder(self.path)

    def _read_index(self) -> None:
        with _reading(self.path / INDEX):
            index = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
            self._take(index)
            self._note(map(Shard.from_json, index["shards"]))
        if len(self.shards) < len(index["shards"]):
            lost = {entry["file"] for entry in index["shards"]} - {
                shard.file for shard in self.shards.values()
            }
            raise DataError(
                f"{str(self.path)!r} has lost {min(lost)!r}, or it was cut: say --overwrite to "
                "start over"
            )
        self._drop_journal()

    def _read_journal(self) -> None:
        with _reading(self.path / JOURNAL):
            whole, _, torn = (self.path / JOURNAL).read_bytes().rpartition(b"\n")
            head, *entries = [json.loads(line) for line in whole.splitlines()]
            self._take(head)
            self._note(map(Shard.from_json, entries))
        if torn:  # a kill in the middle of an entry, whose shard is computed again
            with writing(str(self.path / JOURNAL)), (self.path / JOURNAL).open("r+b") as file:
                file.truncate(len(whole) + 1)

    def _take(self, head: dict[str, Any]) -> None:
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']!r}, and this fmrt reads {VERSION}")
        self.settings = dict(head["settings"])

    def _note(self, shards: Iterator[Shard]) -> None:
        self.shards = {shard.number: shard for shard in shards if shard.is_in(self.path)}


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"cannot read {str(path)!r}: {one_line(e)}; say --overwrite to start over"
        ) from e


def _ours(path: Path) -> list[Path]:
    return sorted(found for pattern in OURS for found in path.glob(pattern))


def _remove_all(path: Path) -> None:
    """Remove a job's files, the journal and index first: shards without one are no job."""
    with writing(str(path)):
        for found in sorted(_ours(path), key=lambda p: p.name not in (JOURNAL, INDEX)):
            found.unlink()
        sync_folder(path)


@contextmanager
def _removed_if_empty(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # as it is when anything is in it
            path.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes off the folder until the end of the context, or of this process."""
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where nothing locks a folder
    except ImportError:
        yield
        return
    with writing(str(path)):
        handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as e:
        raise DataError(f"another process writes to {str(path)!r}; wait for its end") from e
    finally:
        os.close(handle)
