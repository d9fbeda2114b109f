"""The table of output formats, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmrt.data._jsonl_vectors import JSONL
from fmrt.data._npy import NPY
from fmrt.data._output_format import EMBEDDING, Form, OutputFormat, Writer
from fmrt.data._parquet_vectors import PARQUET
from fmrt.errors import DataError

STDOUT = "-"
OUTPUT_FORMATS = (JSONL, NPY, PARQUET)


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
        output: A .npy, .parquet or .jsonl path, where nothing is before the writer's ``commit``;
            or "-" for JSON lines on standard output, as the vectors come.
        shape: The shape of an item: ``(dim,)``, or ``(patches, dim)``.
        dtype: The dtype of the components: float32, float16, int8 or uint8.
        keep: The names of the columns to carry along; .npy has no place for them.
        overwrite: Whether ``commit`` may replace a file.
        like: Another such output, whose types the kept columns get.
        provenance: The provenance of the vectors, for .parquet; the others cannot hold it.

    Raises:
        DataError: If there can be no such output; later, from the writer, if writing fails.
        MissingExtraError: The file is parquet, and pyarrow is not installed.
    """
    form = Form(shape, np.dtype(dtype), tuple(dict.fromkeys(keep)), like, provenance)
    known = _chosen(output)
    if keep and not known.keeps_columns:
        others = " or ".join(f.extension for f in reversed(OUTPUT_FORMATS) if f.keeps_columns)
        raise DataError(f"{known.extension} holds vectors only; write {others} to carry columns")
    if output != STDOUT:
        _check_place(Path(output), overwrite)
    if EMBEDDING in keep:
        raise DataError(f"cannot keep {EMBEDDING!r}: the vectors are written under that name")
    if output == STDOUT and known.to_stdout is not None:
        return known.to_stdout(form)
    return known.open(output, form)


def format_of(path: str | Path) -> OutputFormat | None:
    """The format of a file by its extension; None for another file."""
    suffix = Path(path).suffix.lower()
    return next((known for known in OUTPUT_FORMATS if known.extension == suffix), None)


def shard_formats() -> dict[str, OutputFormat]:
    """Formats that a job's shards may have, by the names that they have there."""
    return {known.extension.removeprefix("."): known for known in OUTPUT_FORMATS if known.shard}


def extensions() -> str:
    """The extensions of all formats, for people."""
    *others, last = (known.extension for known in OUTPUT_FORMATS)
    return f"{', '.join(others)} or {last}"


def _chosen(output: str) -> OutputFormat:
    if output == STDOUT:
        return next(known for known in OUTPUT_FORMATS if known.to_stdout is not None)
    known = format_of(output)
    if known is None:
        raise DataError(f"cannot write {output!r}: give a name that ends in {extensions()}")
    return known


def _check_place(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a directory; give a file name")
    if path.exists() and not overwrite:
        raise DataError(f"{str(path)!r} exists; say --overwrite or give another name")
    if not path.parent.is_dir():
        raise DataError(f"there is no directory {str(path.parent)!r}; make it first")
