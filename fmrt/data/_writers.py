"""The table of output formats, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.data._jsonl_vectors import EXTENSION, JsonlWriter, StdoutWriter
from fmrt.data._npy import NpyWriter
from fmrt.data._parquet_writer import ParquetWriter
from fmrt.errors import DataError
from fmrt.whole_file import nothing

STDOUT = "-"


class Writer(Protocol):
    """Takes vectors in pieces; the output has its final name only after ``commit``.

    Call ``abort`` in the end in any case: it removes what was not committed, and only that.
    """

    def write(self, vectors: NDArray[Any], kept: Sequence[Mapping[str, object]]) -> None:
        """Append ``vectors`` [n, *shape], of the same dtype every time, with n rows of columns."""

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Finish the file, bring it to the disk, call ``before``, rename it onto the output."""

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""


@dataclass(frozen=True)
class OutputFormat:
    """One output format.

    Attributes:
        extension: of its files, with the dot.
        open: takes the path, an item's shape, the dtype, the columns to keep, another file whose
            types of these columns to take, or None, and where the vectors come from, or None.
        columns: whether it can carry columns along.
    """

    extension: str
    open: Callable[
        [
            str,
            tuple[int, ...],
            np.dtype[Any],
            tuple[str, ...],
            str | None,
            Mapping[str, Any] | None,
        ],
        Writer,
    ]
    columns: bool


OUTPUT_FORMATS = (
    OutputFormat(EXTENSION, JsonlWriter, columns=True),
    OutputFormat(".npy", NpyWriter, columns=False),
    OutputFormat(".parquet", ParquetWriter, columns=True),
)


def open_writer(
    output: str,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    keep: Sequence[str] = (),
    overwrite: bool = False,
    like: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Writer:
    """Return a writer of vectors [n, *shape] to ``output``, a path or standard output.

    Args:
        output: a .npy, .parquet or .jsonl path, where nothing is before the writer's ``commit``;
            or "-" for JSON lines on standard output, as the vectors come.
        shape: of an item: ``(dim,)``, or ``(patches, dim)``.
        dtype: of the components: float32, float16, int8 or uint8.
        keep: names of the columns to carry along; .npy has no place for them.
        overwrite: whether ``commit`` may replace a file.
        like: another such output, whose types the kept columns get.
        provenance: where the vectors come from, for .parquet; the others cannot hold it.

    Raises:
        DataError: if there can be no such output; later, from the writer, if writing fails.
        MissingExtraError: for parquet without pyarrow.
    """
    if output == STDOUT:
        return StdoutWriter(shape, np.dtype(dtype), tuple(dict.fromkeys(keep)))
    chosen = _chosen(output)
    if keep and not chosen.columns:
        raise DataError(
            f"{chosen.extension} holds vectors only; write .parquet or .jsonl to carry columns"
        )
    _check_place(Path(output), overwrite)
    columns = tuple(dict.fromkeys(keep))
    return chosen.open(output, shape, np.dtype(dtype), columns, like, provenance)


def _chosen(output: str) -> OutputFormat:
    for known in OUTPUT_FORMATS:
        if Path(output).suffix.lower() == known.extension:
            return known
    *others, last = (known.extension for known in OUTPUT_FORMATS)
    raise DataError(
        f"cannot write {output!r}: give a name that ends in {', '.join(others)} or {last}"
    )


def _check_place(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a directory; give a file name")
    if path.exists() and not overwrite:
        raise DataError(f"{str(path)!r} exists; say --overwrite or give another name")
    if not path.parent.is_dir():
        raise DataError(f"there is no directory {str(path.parent)!r}; make it first")
