"""What an output format is: a file next to this one, and its row in `fmrt.data._outputs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import DataError
from fmrt.system.whole_file import PendingFile, nothing, writing
from fmrt.words import shown

# The name of the column of vectors, in formats that have columns.
EMBEDDING = "embedding"
Embeddings = tuple[NDArray[Any], dict[str, list[object]]]
Provenance = Mapping[str, Any]
Stated = Callable[[], Provenance | None]


@dataclass(frozen=True)
class Form:
    """What an output holds.

    Attributes:
        shape: The shape of an item: ``(dim,)``, or ``(patches, dim)``.
        dtype: The dtype of the components.
        keep: The names of the columns that are carried along.
        like: Another output, whose types these columns get.
        provenance: The provenance of the vectors, for a format that holds it itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    keep: tuple[str, ...] = ()
    like: str | None = None
    provenance: Provenance | None = None

    def check(self, vectors: NDArray[Any], rows: int) -> None:
        """Raise ``ValueError`` unless these are vectors of this form."""
        shape = (rows, *self.shape)
        if vectors.shape != shape or vectors.dtype != self.dtype:
            raise ValueError(
                f"vectors are {vectors.dtype} {list(vectors.shape)}; the writer takes {self.dtype} "
                f"{list(shape)}"
            )


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

    Without columns, the lines of the rows go to a file next to it; without a place for provenance,
    so does that.

    Attributes:
        extension: The extension of its files, with the dot.
        open: A function that takes the path and what the output holds.
        read: A function that takes the path, the columns to return as lists where there are such,
            and what returns the provenance next to the file. It gives the vectors [n, dim] and the
            columns.
        keeps_columns: Whether it can carry columns along.
        shard: Whether a job's shards may be such files.
        provenance: A function that takes a path, and gives the JSON text that the file holds; None
            for a format without a place for it.
        shape_of: A function that takes a path, and gives shape and dtype of all that is in it, by
            which a file of provenance next to it is known; or the number of rows alone, and None.
        to_stdout: A function that takes what the output holds; None for a format that is no stream.
    """

    extension: str
    open: Callable[[str, Form], Writer]
    read: Callable[[str, Sequence[str], Stated], Embeddings]
    keeps_columns: bool
    shard: bool = False
    provenance: Callable[[str], bytes | None] | None = None
    shape_of: Callable[[str], tuple[list[int], str | None]] | None = None
    to_stdout: Callable[[Form], Writer] | None = None


class FileWriter:
    """What writers of files have in common.

    Args:
        output: The path of the output.
        form: What it holds.
    """

    def __init__(self, output: str, form: Form) -> None:
        self._form = form
        self._pending = PendingFile(output)

    def commit(self, before: Callable[[], None] = nothing) -> None:
        """Finish the file and give it its name."""
        with writing(self._pending.output):
            self._finish()
        self._pending.commit(before)

    def abort(self) -> None:
        """Remove the unfinished file; after ``commit``, do nothing."""
        self._pending.abort()

    def _finish(self) -> None:
        """Write what comes when all vectors are there."""

    def _append(self, data: bytes | memoryview) -> None:
        with writing(self._pending.output):
            self._pending.file.write(data)


def patches(path: str) -> DataError:
    """The error of a file with several vectors per item."""
    return DataError(
        f"{shown(path)} holds vectors of patches, several an image; export the model without "
        "--output patch for one"
    )
