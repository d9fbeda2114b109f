"""The rows of a matrix that are nearest to a query, by cosine, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.data import (
    AS_IT_SAYS,
    BadRecord,
    Reading,
    Record,
    as_reading,
    read_embeddings,
    read_provenance,
)
from fmrt.data.lines import read_lines
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.embedding.request import prompt_text
from fmrt.errors import DataError, InputError
from fmrt.jobs import space_of
from fmrt.loading import Given, Model, options_in, takes_model
from fmrt.options import checked
from fmrt.system.limits import Limits
from fmrt.words import count, shown

# 64 MiB as float32: a block of a memory-mapped file.
_BLOCK_ELEMENTS = 1 << 24
_MATRIX = 2


@dataclass(frozen=True)
class Hit:
    """A row that is near to a query.

    Attributes:
        row: The row of the vectors, from 0.
        score: Cosine similarity to the query.
        line: The line of the row's record in the file that was embedded, where records were
            skipped.
        text: The text that was embedded, where it is known.
    """

    row: int
    score: float
    line: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class _Vectors:
    """What is searched.

    Attributes:
        name: The name for messages.
        matrix: ``[n, dim]``, which may be memory-mapped.
        lines: The line of each row; None when every record has a row.
        texts: The texts of each row, where they are next to the vectors.
        provenance: The provenance of the vectors, where it is known.
    """

    name: str
    matrix: NDArray[Any]
    lines: NDArray[np.int64] | None = None
    texts: Sequence[object] | None = None
    provenance: Mapping[str, Any] | None = None


@takes_model
def search(
    model: Given,
    vectors: str | Path | NDArray[Any],
    query: str,
    options: EmbedOptions = DEFAULTS,
    *,
    k: int = 5,
    texts: str | Path | None = None,
    reading: Reading = AS_IT_SAYS,
    check_provenance: bool = True,
    **arguments: Any,
) -> list[Hit]:
    """Return the rows whose vectors are nearest to a query, best first, as ``fmrt search`` does.

    Of equal ones the first row comes first. By default the query has the model's ``query`` prompt,
    and the dimensions of the vectors.

    Args:
        model: A bundle's directory or its id on the hub, a `Bundle`, or an `Embedder`.
        vectors: A file or a folder that was written with the model, or an array ``[n, dim]``.
        query: A text.
        options: How to embed the query; see `EmbedOptions`.
        k: The number at most this many rows.
        texts: The file that was embedded, for the hits' texts; default the column "text" next to
            the vectors, if there is one.
        reading: How ``texts`` is read.
        check_provenance: Refuse vectors that say that another model made them.
        arguments: Options by their names, instead of those of ``options``; and arguments of
            `Embedder` where ``model`` is a bundle.

    Raises:
        DataError: The vectors or texts cannot be used, or do not belong together.
        InputError: The query cannot be embedded.
        OptionError: An option that makes no sense for this model.
        BundleError: The bundle cannot be used, as in `Embedder`.
    """
    k, _, _ = checked(k=k, texts=texts, check_provenance=check_provenance)
    reading = as_reading(reading)
    options = options_in(options, arguments)
    found = _opened(vectors, check_provenance=check_provenance)
    opened = Model(model, arguments)
    limits = Limits(opened.max_item_bytes)
    records = None if texts is None else reading.records(str(texts), "text", limits)
    manifest = opened.bundle.manifest
    prompt_text(manifest.tower("text"), options)
    options = _comparable(found, opened.bundle, options)
    check_vectors(found.name, found.matrix, options.truncate_dim or manifest.dim)
    with opened.embedder() as embedder:
        try:
            vector = embedder.embed_query(query, options, show_progress=False)
        except InputError as e:
            raise InputError(f"the query: {e.reason}") from None
    hits = nearest(found.name, found.matrix, vector, k)
    if found.lines is not None:
        hits = [replace(hit, line=int(found.lines[hit.row])) for hit in hits]
    if records is not None:
        return _with_texts(records, hits, len(found.matrix))
    if found.texts is not None:
        return [replace(hit, text=str(found.texts[hit.row])) for hit in hits]
    return hits


def _opened(vectors: str | Path | NDArray[Any], *, check_provenance: bool) -> _Vectors:
    if isinstance(vectors, np.ndarray):
        if vectors.ndim != _MATRIX:
            raise DataError(f"vectors are an array {list(vectors.shape)}; give one [n, dim]")
        return _Vectors("the array", vectors)
    path = str(vectors)
    matrix, columns = read_embeddings(path, columns=("text",))
    lines = read_lines(path, len(matrix))
    provenance = read_provenance(path) if check_provenance else None
    return _Vectors(path, matrix, lines, columns.get("text"), provenance)


def _comparable(found: _Vectors, bundle: Bundle, options: EmbedOptions) -> EmbedOptions:
    """The options, with the dimensions of the vectors; nothing is known of vectors that say none.

    Prompts, variants, precisions and modalities may differ: they are of one space.

    Raises:
        DataError: Another model made the vectors.
    """
    made = found.provenance
    if made is None:
        return options
    if made["space"] != space_of(bundle.manifest):
        raise DataError(
            f"{found.name!r} was embedded with {made['model']!r}, whose vectors "
            f"those of {bundle.manifest.source.model!r} cannot be compared with: search with the "
            "bundle that embedded it, or say --ignore-provenance"
        )
    if options.truncate_dim is None:
        return options.but({"truncate_dim": made["truncate_dim"]})
    return options


def check_vectors(path: str, vectors: NDArray[Any], dim: int) -> None:
    """Raise unless a query of ``dim`` dimensions can be compared with these vectors by cosine.

    Raises:
        DataError: It cannot, with the reason.
    """
    if vectors.dtype.kind != "f" and vectors.dtype != np.int8:
        # uint8 is offset, or has eight dimensions per byte; nothing in the file tells which.
        raise DataError(
            f"{shown(path)} holds {vectors.dtype} vectors, which have no cosine: embed the texts "
            "with --precision float32, float16 or int8"
        )
    if not len(vectors):
        raise DataError(f"{shown(path)} holds no vectors")
    if vectors.shape[1] != dim:
        raise DataError(
            f"{shown(path)} has {vectors.shape[1]} dimensions, and the query has {dim}: search "
            "with the bundle, and the --truncate-dim, that embedded it"
        )


def nearest(path: str, vectors: NDArray[Any], query: NDArray[np.float32], k: int) -> list[Hit]:
    """Return the ``k`` rows with the highest cosine, best first, of equal ones the first row.

    Args:
        path: Where the vectors come from, for messages.
        vectors: ``[n, dim]``, which may be memory-mapped.
        query: ``[dim]``.
        k: The number at most this many.

    Raises:
        DataError: A row holds NaN or infinity.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-30)
    rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    size = max(1, _BLOCK_ELEMENTS // vectors.shape[1])
    for start in range(0, len(vectors), size):
        block = _cosines(vectors[start : start + size], unit)
        if not np.isfinite(block).all():
            row = start + int(np.isfinite(block).argmin())
            raise DataError(f"row {row} of {shown(path)} holds NaN or infinity; embed it again")
        rows = np.concatenate([rows, np.arange(start, start + len(block))])
        scores = np.concatenate([scores, block])
        best = np.argsort(-scores, kind="stable")[:k]
        rows, scores = rows[best], scores[best]
    return [Hit(int(row), float(score)) for row, score in zip(rows, scores, strict=True)]


def _cosines(block: NDArray[Any], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):  # what overflows is not finite, and the caller looks
        values = block.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        cosines: NDArray[np.float32] = values @ unit / np.maximum(norms, 1e-30)
    return cosines


def _with_texts(records: Iterable[Record | BadRecord], hits: Sequence[Hit], rows: int) -> list[Hit]:
    """The hits with their texts, read from the file that was embedded.

    Args:
        records: All records of the file.
        hits: The hits with their lines, unless every record has a row.
        rows: How many rows there are.

    Raises:
        DataError: The file is not the one that was embedded.
    """
    by_line = hits[0].line is not None
    wanted = {_place(hit) for hit in hits}
    found: dict[int, str] = {}
    total = 0
    for position, record in enumerate(records):
        total += 1
        place = record.number if by_line else position
        if place in wanted:
            if isinstance(record, BadRecord):
                raise DataError(f"--texts, line {record.number}: {record.reason}")
            found[place] = str(record.value)
    if not by_line and total != rows:
        raise DataError(
            f"--texts has {count(total, 'record')}, and there are {count(rows, 'vector')}: give "
            "the file that was embedded"
        )
    if len(found) < len(wanted):
        line = min(wanted - found.keys())
        raise DataError(f"--texts has no record at line {line}: give the file that was embedded")
    return [replace(hit, text=found[_place(hit)]) for hit in hits]


def _place(hit: Hit) -> int:
    """The place of the hit's record in the file: its line, or its position."""
    return hit.row if hit.line is None else hit.line
