"""Show the texts nearest to a query, among vectors that fmrt embed wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.cli._common import add_bundle, add_prompt, add_runtime, table
from fmrt.cli.embed import LINES_SUFFIX
from fmrt.data import Record, read_embeddings, read_records
from fmrt.embedder import Embedder
from fmrt.errors import DataError, OptionError

# Rows compared at a time: a memory-mapped file of any size needs no more memory than this.
CHUNK = 65_536
SHOWN_CHARACTERS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_bundle(parser)
    parser.add_argument("embeddings", help=".npy or .parquet file of the same bundle's vectors")
    parser.add_argument("query", help="the text to look for")
    parser.add_argument("-k", type=int, default=5, help="how many to show (default: 5)")
    parser.add_argument(
        "--texts", help="the file that was embedded (default: a parquet's own text)"
    )
    parser.add_argument("--column", help="column or key of the texts")
    add_prompt(parser)
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Print the nearest rows with their cosine similarity."""
    if args.k < 1:
        raise OptionError(f"-k {args.k}; give at least 1")
    column = args.column or "text"
    vectors, columns = read_embeddings(args.embeddings, columns=(column,))
    with Embedder.from_pretrained(
        args.bundle, variant=args.variant, provider=args.provider
    ) as embedder:
        _check(args.embeddings, vectors, embedder.dim)
        options = {"truncate_dim": vectors.shape[1], "on_too_long": "error"}
        query = embedder.embed_query(
            args.query, prompt_name=args.prompt_name, prompt=args.prompt, **options
        )
    rows, scores = nearest(vectors, query, args.k)
    lines = _lines(args.embeddings, len(vectors))
    texts = _texts(args, columns.get(column), lines, rows)
    print(
        table(
            ("score", "line", "text"),
            (
                (f"{score:.4f}", f"{lines[row]:,}", text)
                for row, score, text in zip(rows, scores, texts, strict=True)
            ),
        )
    )
    return 0


def nearest(
    vectors: NDArray[np.generic], query: NDArray[np.float32], k: int
) -> tuple[list[int], list[float]]:
    """The rows most similar to ``query`` and their cosines, best first.

    Args:
        vectors: numbers ``[n, dim]``, of any length each; a zero row has cosine 0.
        query: float32 ``[dim]``.
        k: how many rows, or all when there are fewer.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-12)
    best: list[tuple[float, int]] = []
    for start in range(0, len(vectors), CHUNK):
        chunk = np.asarray(vectors[start : start + CHUNK], np.float32)
        norms = np.maximum(np.linalg.norm(chunk, axis=1), 1e-12)
        cosines = chunk @ unit / norms
        top = np.argsort(-cosines, kind="stable")[:k]
        best += [(float(cosines[i]), start + int(i)) for i in top]
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[:k]
    return [row for _, row in best], [score for score, _ in best]


def _check(path: str, vectors: NDArray[np.generic], dim: int) -> None:
    if len(vectors) == 0:
        raise DataError(f"{path} holds no vectors")
    if vectors.dtype == np.uint8:
        raise DataError(f"{path} holds uint8 or binary vectors, which a cosine says nothing about")
    if vectors.shape[1] > dim:
        raise DataError(
            f"{path} has {vectors.shape[1]} dimensions, and this bundle has {dim}: another model's"
        )


def _lines(path: str, rows: int) -> NDArray[np.int64]:
    """1-based line of every row: the file beside a .npy where records were skipped, or 1 to n."""
    sidecar = Path(path).with_suffix(LINES_SUFFIX)
    if not path.lower().endswith(".npy") or not sidecar.is_file():
        return np.arange(1, rows + 1, dtype=np.int64)
    lines: NDArray[np.int64] = np.load(sidecar, allow_pickle=False)
    if len(lines) != rows:
        raise DataError(f"{sidecar} has {len(lines):,} rows, and {path} has {rows:,}")
    return lines


def _texts(
    args: argparse.Namespace,
    stored: list[object] | None,
    lines: NDArray[np.int64],
    rows: list[int],
) -> list[str]:
    if args.texts is None:
        return [_short(str(stored[row])) if stored is not None else "" for row in rows]
    wanted = {int(lines[row]) for row in rows}
    found, last = {}, 0
    for record in read_records(args.texts, format=None, column=args.column, keep=()):
        last = record.number
        if isinstance(record, Record) and record.number in wanted:
            found[record.number] = _short(record.text)
    if len(lines) and (last < lines[-1] or wanted - found.keys()):
        raise DataError(f"{args.texts} ends at {last:,}, and the vectors at {lines[-1]:,}")
    return [found[int(lines[row])] for row in rows]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."
