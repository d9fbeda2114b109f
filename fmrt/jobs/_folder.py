"""The folder of a job: its lock, its journal, and the index that takes the journal's place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from fmrt.data.index import (
    INDEX,
    VERSION,
    extension_of,
    opened,
    read_index,
    read_regular,
    reading_job,
    sealed,
    version_of,
)
from fmrt.data.lock import locked_folder
from fmrt.data.shard import Shard, is_shard_name, whole
from fmrt.embedding.scheduler import Workers
from fmrt.errors import DataError
from fmrt.system.cores import available_cores
from fmrt.system.whole_file import sync_folder, write_whole, writing

JOURNAL = "journal.jsonl"


class Folder:
    """A job's folder, which one process at a time may have; made by `opened`.

    What the journal or index says of the shards holds only after `check`.

    Attributes:
        path: The path of the folder.
        settings: The settings of the job that is there, or None.
        shards: The complete shards, by number.
        complete: Whether the job is complete.
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
            path: The path of the folder.
            overwrite: Whether to remove a job that is there.

        Raises:
            DataError: There can be no such folder, another process has it, or it holds shards
                without a journal.
        """
        new = not path.exists()
        with writing(str(path)):
            path.mkdir(exist_ok=True)
        with _removed_if_empty(path) if new else nullcontext(), locked_folder(path):
            if overwrite:
                _remove_all(path)
            folder = cls(path)
            if folder.settings is None and (found := _ours(path)):
                raise DataError(
                    f"{str(path)!r} holds {found[0].name!r} and no journal: give another folder, "
                    "or say --overwrite"
                )
            yield folder

    def files(self) -> list[Path]:
        """The job's files, sorted by name."""
        return _ours(self.path)

    @property
    def rows(self) -> int:
        """Vectors in complete shards."""
        return sum(shard.rows for shard in self.shards.values())

    def check(self) -> list[str]:
        """Compare the files of the shards that are there with what was written, by SHA-256.

        A shard that differs is forgotten, so that it is computed again; a job that was complete
        then is so no more.

        Returns:
            Names of the files that are lost or have changed.
        """
        damaged = self._forget_damaged()
        if self.complete:
            if damaged:
                self._reopen()
            else:
                self._remove(JOURNAL)
        return damaged

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the journal's head, before any shard of a new job; of an old one, do nothing."""
        if self.settings is None:
            self.settings = dict(settings)
            write_whole(self.path / JOURNAL, _head(self.settings))

    def add(self, shard: Shard) -> None:
        """Note a complete shard; it counts from now on."""
        # Not with "a": a journal that was removed would begin without its head.
        with writing(str(self.path / JOURNAL)), (self.path / JOURNAL).open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(_line(shard.to_json()))
            file.flush()
            os.fsync(file.fileno())
        self.shards[shard.number] = shard

    def finish(self, records: int, facts: Mapping[str, Any]) -> None:
        """Write the index instead of the journal, when all files are as they were written.

        Args:
            records: The records of the whole input.
            facts: Facts about all vectors.

        Raises:
            DataError: A shard was lost or changed while the job ran, or the journal does not fit
                the input.
        """
        shards = [self.shards[number] for number in sorted(self.shards)]
        self._check_records(shards, records)
        if damaged := self._forget_damaged():
            raise DataError(
                f"{min(damaged)!r} of {str(self.path)!r} was removed or changed while the job ran"
            )
        index = {
            "version": VERSION,
            "rows": self.rows,
            **facts,
            "records": records,
            "skipped": sum(shard.skipped for shard in shards),
            "settings": self.settings,
            "shards": [shard.to_json() for shard in shards],
        }
        write_whole(self.path / INDEX, (json.dumps(sealed(index), indent=1) + "\n").encode())
        self._remove(JOURNAL)
        self.complete = True

    def _check_records(self, shards: Sequence[Shard], records: int) -> None:
        size = self._shard_rows()
        wanted = [min(size, records - start) for start in range(0, records, size)]
        found = [(shard.number, shard.records) for shard in shards]
        if found != list(enumerate(wanted)):
            raise DataError(
                f"the shards in {str(self.path)!r} do not cover the {records} records of the input "
                "once each: say --overwrite to start over"
            )

    def _shard_rows(self) -> int:
        return whole(self.settings or {}, "shard_rows", 1)

    def _forget_damaged(self) -> list[str]:
        """Forget the shards of which a file is not as it was written; a name of each."""
        shards = list(self.shards.values())
        with closing(Workers(available_cores())) as workers:
            names = list(workers.map(lambda shard: shard.damage(self.path), shards))
        self.shards = {s.number: s for s, name in zip(shards, names, strict=True) if name is None}
        return [name for name in names if name is not None]

    def _reopen(self) -> None:
        """Put a journal in the index's place."""
        lines = [_head(self.settings or {}), *(_line(s.to_json()) for s in self.shards.values())]
        write_whole(self.path / JOURNAL, b"".join(lines))
        self._remove(INDEX)
        self.complete = False

    def _remove(self, name: str) -> None:
        with writing(str(self.path)):
            (self.path / name).unlink(missing_ok=True)
            sync_folder(self.path)

    def _read_index(self) -> None:
        index = read_index(str(self.path))
        with reading_job(self.path / INDEX):
            self._take(index.version, index.settings)
        self.shards = {shard.number: shard for shard in index.shards}

    def _read_journal(self) -> None:
        path = self.path / JOURNAL
        with reading_job(path):
            complete, _, torn = read_regular(path).rpartition(b"\n")
            head, *entries = [json.loads(line) for line in complete.splitlines()]
            version = version_of(head)
            self._take(version, dict((opened(head) if version > 1 else head)["settings"]))
            extension, most = extension_of(self.settings or {}), self._shard_rows()
            for entry in entries:
                shard = Shard.from_json(opened(entry), extension, version)
                if shard.records > most:
                    raise ValueError(f"records is {shard.records}, and a shard has {most}")
                self.shards[shard.number] = shard  # the last entry of a shard counts
        if torn:  # a kill in the middle of an entry, whose shard is computed again
            with writing(str(path)), path.open("r+b") as file:
                file.truncate(len(complete) + 1)

    def _take(self, version: int, settings: dict[str, Any]) -> None:
        if version < VERSION:
            raise ValueError(
                f"an earlier fmrt wrote it (version {version}), whose jobs this one reads and does "
                "not go on with"
            )
        self.settings = settings
        whole(settings, "shard_rows", 1)
        whole(settings, "batch_tokens", 1)


def _head(settings: Mapping[str, Any]) -> bytes:
    return _line({"version": VERSION, "settings": settings})


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(sealed(value)) + "\n").encode()


def _ours(path: Path) -> list[Path]:
    """Files that a job has written; anything else in the folder is left alone."""
    with writing(str(path)):
        return sorted(
            found
            for found in path.iterdir()
            if found.name in (JOURNAL, INDEX) or is_shard_name(found.name)
        )


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
