"""The output of an embedding run: vectors, and line numbers where records may be skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.data import Record, Writer, open_writer
from fmrt.data._lines import LinesWriter, lines_path
from fmrt.data._source import shown
from fmrt.errors import DataError


def check_output(output: str, keep: Sequence[str], *, overwrite: bool) -> None:
    """Raise, before any work, if ``output`` could not be written in the end.

    Raises:
        DataError: it could not.
        MissingExtraError: for parquet without pyarrow.
    """
    dtype = np.dtype(np.float32)  # any: nothing is written
    open_writer(output, shape=(1,), dtype=dtype, keep=keep, overwrite=overwrite).abort()
    lines = lines_path(output)
    # Also when nothing will be skipped: another run's line numbers are wrong for these vectors.
    if lines is not None and lines.exists() and not overwrite:
        raise DataError(f"{shown(str(lines))} exists; say --overwrite or give another name")


class Output:
    """Writes a run's vectors and, where needed, the line of each; made by `opened`."""

    def __init__(self, writer: Writer, path: Path | None, lines: LinesWriter | None) -> None:
        self._writer = writer
        self._path = path
        self._lines = lines

    def write(self, records: Sequence[Record], vectors: NDArray[Any]) -> None:
        """Append the vectors of some records."""
        self._writer.write(vectors, [record.kept for record in records])
        if self._lines is not None:
            self._lines.write([record.number for record in records])

    def commit(self, *, skipped: bool) -> Path | None:
        """Give the files their names; return the line numbers' if records were skipped."""
        if self._lines is None or self._path is None or not skipped:
            self._writer.commit()
            if self._path is not None:
                self._path.unlink(missing_ok=True)  # another run's, as overwriting is allowed
            return None
        # First, as vectors without the lines that belong to them would pass for complete.
        self._lines.commit()
        try:
            self._writer.commit()
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        return self._path


@contextmanager
def opened(
    output: str,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    keep: Sequence[str],
    overwrite: bool,
    skip: bool,
) -> Iterator[Output]:
    """Open an output that `check_output` has accepted; leave nothing behind without a commit.

    Args:
        output: a .npy or .parquet path.
        shape: of an item's vector, or of its vectors.
        dtype: of the elements.
        keep: columns to carry along.
        overwrite: whether to replace a file.
        skip: whether records may be skipped, so that rows may need line numbers.
    """
    path = lines_path(output)
    with ExitStack() as stack:
        writer = open_writer(output, shape=shape, dtype=dtype, keep=keep, overwrite=overwrite)
        stack.callback(writer.abort)
        lines = LinesWriter(path) if skip and path is not None else None
        if lines is not None:
            stack.callback(lines.abort)
        yield Output(writer, path, lines)
