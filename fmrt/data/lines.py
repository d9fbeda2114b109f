"""``vectors.lines.npy`` beside ``vectors.npy``: the line of each row when records were skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.data._npy import npy_header
from fmrt.data.index import read_index
from fmrt.errors import DataError
from fmrt.whole_file import PendingFile, nothing, writing
from fmrt.words import one_line, shown

_LINE = np.dtype("<i8")


def lines_path(vectors: str) -> Path | None:
    """Path of the line numbers of ``vectors``; None for a format that can hold them itself."""
    path = Path(vectors)
    return path.with_suffix(".lines.npy") if path.suffix.lower() == ".npy" else None


class LinesWriter:
    """Appends line numbers to an int64 array [rows] that has its name only after ``commit``."""

    def __init__(self, path: Path) -> None:
        self._rows = 0
        self._pending = PendingFile(str(path))
        self._header()

    def write(self, numbers: Sequence[int]) -> None:
        """Append the line numbers of the next rows."""
        with writing(self._pending.output):
            self._pending.file.write(np.array(numbers, _LINE).data)
        self._rows += len(numbers)

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Write the number of rows into the header and give the file its name."""
        self._header()
        self._pending.commit(before)

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        self._pending.abort()

    def _header(self) -> None:
        with writing(self._pending.output):
            self._pending.file.seek(0)
            self._pending.file.write(npy_header((self._rows,), _LINE))


def read_lines(vectors: str, rows: int) -> NDArray[np.int64] | None:
    """Return the line of each row of ``vectors``, int64 [rows], or None if none was skipped.

    Args:
        vectors: a file of vectors, or a folder of shards.
        rows: of the vectors.

    Raises:
        DataError: there is such a file, and it does not belong to these vectors.
    """
    if Path(vectors).is_dir():
        return _of_shards(vectors)
    path = lines_path(vectors)
    if path is None or not path.exists():
        return None
    try:
        lines: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"cannot read {shown(str(path))}: {one_line(e)}") from e
    if not isinstance(lines, np.ndarray) or lines.dtype != _LINE or lines.shape != (rows,):
        raise DataError(
            f"{shown(str(path))} does not hold the lines of {shown(vectors)}: remove it, or embed "
            "the texts again"
        )
    return lines


def _of_shards(folder: str) -> NDArray[np.int64] | None:
    parts = []
    for shard in read_index(folder).shards:
        path = str(Path(folder, shard.file))
        if lines_path(path) is None:
            return None
        parts.append(read_lines(path, shard.rows))
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise DataError(f"{shown(folder)} has lost line numbers: embed the texts again")
    return np.concatenate(found)
