"""Windows of vectors, in input order, to shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import record_of
from fmrt.data import Record, Writer, open_writer
from fmrt.data.lines import LinesWriter, lines_path
from fmrt.data.shard import Shard, shard_name
from fmrt.jobs._folder import Folder
from fmrt.system.whole_file import writing

Numbered = tuple[int, Record]


class ShardSink:
    """Writes each shard that is not there yet, one after the other.

    Args:
        folder: The folder of the job.
        rows: The number of records of the input per shard.
        extension: The extension of the shards' files, with the dot.
        shape: The shape of an item's vector, or of its vectors.
        dtype: The dtype of the elements.
        keep: The columns to carry along.
        provenance: The provenance of the vectors.
        check: A function that is called before a shard counts; it raises when the input is not what
            it was.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        rows: int,
        extension: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: Sequence[str],
        provenance: Mapping[str, Any],
        check: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._size = rows
        self._extension = extension
        self._shape, self._dtype, self._keep = shape, dtype, keep
        self._provenance = provenance
        self._check = check
        self._next = 0
        self._writer: Writer | None = None
        self._numbers: list[int] = []

    def number(self, record: int) -> int:
        """Shard of a record, which is counted from 0."""
        return record // self._size

    def is_done(self, record: int) -> bool:
        """Whether the shard of a record was complete before."""
        return record // self._size in self._folder.shards

    def write(self, items: Sequence[Numbered], vectors: NDArray[Any]) -> None:
        """Append the vectors of some records, all of one shard."""
        if not items:
            return
        self._advance(self.number(items[0][0]))
        if self._writer is None:
            self._writer = self._open()
        self._writer.write(vectors, [record.kept for _, record in items])
        self._numbers += [record.number for _, record in items]

    def finish(self, records: int) -> None:
        """Complete the last shards.

        Args:
            records: The records of the whole input.
        """
        last = self.number(records - 1)
        self._advance(last)
        if last not in self._folder.shards:
            self._complete(records - last * self._size)

    def abort(self) -> None:
        """Remove what is not complete."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _advance(self, number: int) -> None:
        """Complete the shards before one, those that hold nothing too."""
        while self._next < number:
            if self._next not in self._folder.shards:
                self._complete(self._size)
            self._next += 1

    def _complete(self, records: int) -> None:
        writer = self._writer or self._open()
        path = self._path(self._next)
        try:
            self._check()
            lines = self._write_lines(path)
            writer.commit()
        finally:
            writer.abort()
            self._writer = None
        rows, self._numbers = len(self._numbers), []
        with writing(str(path)):
            content = record_of(path)
            lines_content = None if lines is None else record_of(lines)
        self._folder.add(Shard(self._next, self._extension, rows, records, content, lines_content))

    def _write_lines(self, path: Path) -> Path | None:
        """Line numbers come first: vectors without those that belong to them would be wrong."""
        target = lines_path(str(path))
        if target is None:
            return None
        lines = LinesWriter(target)
        try:
            lines.add(self._numbers)
            lines.commit()
        finally:
            lines.abort()
        return target

    def _open(self) -> Writer:
        first = self._path(0)
        return open_writer(
            str(self._path(self._next)),
            shape=self._shape,
            dtype=self._dtype,
            keep=self._keep,
            overwrite=True,
            provenance=self._provenance,
            like=str(first) if self._next and first.exists() else None,
        )

    def _path(self, number: int) -> Path:
        return self._folder.path / shard_name(number, self._extension)
