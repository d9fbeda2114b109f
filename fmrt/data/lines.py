"""``vectors.lines.npy`` next to ``vectors.npy``: the line of each row when records were skipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.data._npy import NpyWriter
from fmrt.data._output_format import Form
from fmrt.data._outputs import format_of
from fmrt.data.index import read_index
from fmrt.errors import DataError
from fmrt.words import one_line, shown

_LINE = np.dtype("<i8")


def lines_path(vectors: str) -> Path | None:
    """Path of the line numbers of ``vectors``; None for a format that can hold them itself."""
    known = format_of(vectors)
    if known is None or known.keeps_columns:
        return None
    return Path(vectors).with_suffix(".lines.npy")


class LinesWriter(NpyWriter):
    """Appends line numbers to an int64 array [rows] that has its name only after ``commit``."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Form((), _LINE))

    def add(self, numbers: Sequence[int]) -> None:
        """Append the line numbers of the next rows."""
        self.write(np.array(numbers, _LINE), numbers)


def read_lines(vectors: str, rows: int) -> NDArray[np.int64] | None:
    """Return the line of each row of ``vectors``, int64 [rows], or None if none was skipped.

    Args:
        vectors: A file of vectors, or a folder of shards.
        rows: The rows of the vectors.

    Raises:
        DataError: There is such a file, and it does not belong to these vectors.
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
