"""The output of an embedding run: vectors, where they come from, and lines if some were skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.data import STDOUT, Record, Writer, open_writer
from fmrt.data.lines import LinesWriter, lines_path
from fmrt.data.lock import locked_output
from fmrt.data.provenance import sidecar, sidecar_path
from fmrt.errors import DataError
from fmrt.system.whole_file import nothing, target_of
from fmrt.words import shown


def check_output(output: str, keep: Sequence[str], *, overwrite: bool) -> None:
    """Raise, before any work, if ``output`` could not be written in the end.

    Raises:
        DataError: The output could not be written.
        MissingExtraError: The file is parquet, and pyarrow is not installed.
    """
    dtype = np.dtype(np.float32)  # any: nothing is written
    open_writer(output, shape=(1,), dtype=dtype, keep=keep, overwrite=overwrite).abort()
    # Line numbers also when nothing will be skipped: another run's are wrong for these vectors.
    for path in _companions(output):
        if path.exists() and not overwrite:
            raise DataError(f"{shown(str(path))} exists; say --overwrite or give another name")


class Output:
    """Writes a run's vectors and the files that belong to them; made by `opened`.

    Args:
        output: The path of the output.
        writer: The writer of the vectors.
        lines: The writer of each row's line number, where records may be skipped.
        provenance: The provenance of the vectors.
        form: The shape of an item, and the dtype.

    Attributes:
        lines: The path of the line numbers, if they have a file of their own.
    """

    def __init__(
        self,
        output: str,
        writer: Writer,
        lines: LinesWriter | None,
        provenance: Mapping[str, Any],
        form: tuple[tuple[int, ...], np.dtype[Any]],
    ) -> None:
        self._output = output
        self._writer = writer
        self._lines = lines
        self._provenance = provenance
        self._form = form
        self._rows = 0
        self._cleared = False
        self.lines = lines_path(output)

    def write(self, records: Sequence[Record], vectors: NDArray[Any]) -> None:
        """Append the vectors of some records."""
        self._writer.write(vectors, [record.kept for record in records])
        self._rows += len(records)
        if self._lines is not None:
            self._lines.add([record.number for record in records])

    def commit(self, *, skipped: bool) -> tuple[Path, ...]:
        """Give the files their names, the vectors' last, and return them, the vectors' first.

        All are brought to the disk before the first of them gets its name. Vectors that are
        replaced go before that, so that none are ever next to another run's files.
        """
        if not _companions(self._output):
            self._writer.commit()
            return () if self._output == STDOUT else (Path(self._output),)
        with ExitStack() as stack:
            files: list[_File] = [self._writer]
            if self._lines is not None and skipped:
                files.append(self._lines)
            if (path := sidecar_path(self._output)) is not None:
                facts = sidecar(path, self._facts())
                stack.callback(facts.abort)
                files.append(facts)
            try:
                self._commit(files)
            except BaseException:
                if self._cleared:
                    self._clear()
                raise
        beside = [*([self.lines] if self._lines in files else []), sidecar_path(self._output)]
        return (Path(self._output), *(path for path in beside if path is not None))

    def _commit(self, files: Sequence[_File]) -> None:
        if files:
            files[0].commit(partial(self._commit, files[1:]))
        else:
            self._clear()

    def _clear(self) -> None:
        self._cleared = True
        # What a link points to is replaced, not the link.
        for path in (target_of(self._output), *_companions(self._output)):
            path.unlink(missing_ok=True)

    def _facts(self) -> dict[str, Any]:
        shape, dtype = self._form
        return {"shape": [self._rows, *shape], "dtype": str(dtype), **self._provenance}


class _File(Protocol):
    def commit(self, before: Callable[[], None] = nothing) -> None:
        """As of `PendingFile`."""


def _companions(output: str) -> list[Path]:
    """Files that may be next to the vectors."""
    return [path for path in (lines_path(output), sidecar_path(output)) if path is not None]


@contextmanager
def opened(
    output: str,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    keep: Sequence[str],
    overwrite: bool,
    skip: bool,
    provenance: Mapping[str, Any],
) -> Iterator[Output]:
    """Open an output that `check_output` has accepted; without a commit, nothing is left.

    Args:
        output: A .npy or .parquet path.
        shape: The shape of an item's vector, or of its vectors.
        dtype: The dtype of the elements.
        keep: The columns to carry along.
        overwrite: Whether to replace a file.
        skip: Whether records may be skipped, so that rows may need line numbers.
        provenance: The provenance of the vectors.
    """
    path = lines_path(output)
    with ExitStack() as stack:
        if output != STDOUT:
            stack.enter_context(locked_output(output))
        writer = open_writer(
            output,
            shape=shape,
            dtype=dtype,
            keep=keep,
            overwrite=overwrite,
            provenance=provenance,
        )
        stack.callback(writer.abort)
        lines = LinesWriter(path) if skip and path is not None else None
        if lines is not None:
            stack.callback(lines.abort)
        yield Output(output, writer, lines, provenance, (shape, np.dtype(dtype)))
