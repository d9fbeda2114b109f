"""``fmrt search``: the embedded texts that are nearest to a query."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import (
    Subparsers,
    add_embedding,
    add_model,
    add_reading,
    check_reading_is_used,
    open_bundle,
    options_of,
    positive,
    reading_options,
)
from fmrt.cli._say import print_json
from fmrt.cli._text import shortened, table
from fmrt.errors import DataError, InputError
from fmrt.words import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fmrt.bundle import Bundle
    from fmrt.cli._nearest import Hit
    from fmrt.data import BadRecord, Record

QUERY_OPTIONS = ("prompt_name", "prompt", "truncate_dim")
_NUMBERS = ("rank", "score", "row")
_WIDTH = 120
_LEAST_TEXT = 20


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "search",
        help="find the embedded texts nearest to a query",
        description="Print the rows of EMBEDDINGS, counted from 0, that are nearest to QUERY by "
        "cosine, with their texts where they are known.",
    )
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument(
        "embeddings",
        metavar="EMBEDDINGS",
        help="the .npy or .parquet file, or the folder, of fmrt embed",
    )
    parser.add_argument("query", metavar="QUERY", help="a text")
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="the file that was embedded (default: the parquet column 'text', if there is one)",
    )
    add_reading(parser)
    parser.add_argument(
        "-k", metavar="N", type=positive, default=5, help="rows to print (default: 5)"
    )
    # By default the model's prompt 'query', if it has one, and the dimensions of EMBEDDINGS.
    add_embedding(parser, QUERY_OPTIONS)
    parser.add_argument(
        "--json", action="store_true", help="print the hits as JSON, see docs/command-line.md"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print rows' numbers alone")
    parser.add_argument(
        "--ignore-provenance",
        action="store_true",
        help="search though EMBEDDINGS says that another model made it",
    )


def run(args: argparse.Namespace) -> int:
    """Print the nearest rows.

    Raises:
        DataError: the vectors or texts cannot be used, or do not belong together.
    """
    from fmrt.cli._nearest import check_vectors, nearest
    from fmrt.data import read_embeddings, read_provenance, read_records
    from fmrt.data.lines import read_lines
    from fmrt.request import prompt_text

    check_reading_is_used(args)
    vectors, columns = read_embeddings(args.embeddings, columns=("text",))
    lines = read_lines(args.embeddings, len(vectors))
    records = None
    if args.texts is not None:
        records = read_records(args.texts, **reading_options(args))
    bundle, args.provider = open_bundle(args)
    prompt_text(bundle.manifest.tower("text"), options_of(args))
    if not args.ignore_provenance:
        _check_provenance(args, bundle, read_provenance(args.embeddings))
    check_vectors(args.embeddings, vectors, args.truncate_dim or bundle.manifest.dim)
    hits = nearest(args.embeddings, vectors, _query(args, bundle), args.k)
    if records is not None:
        texts: list[str] | None = _texts(records, hits, lines, len(vectors))
    else:
        texts = [str(columns["text"][hit.row]) for hit in hits] if "text" in columns else None
    if args.json:
        print_json({"query": args.query, "hits": _values(hits, texts, lines)})
    elif args.quiet:
        print("\n".join(str(hit.row) for hit in hits))
    else:
        print(_table(hits, texts))
    return 0


def _check_provenance(
    args: argparse.Namespace, bundle: Bundle, provenance: Mapping[str, Any] | None
) -> None:
    """Compare with what made the vectors, and cut the query as they were; nothing if unknown.

    Prompts, variants, precisions and modalities may differ: they are of one space.

    Raises:
        DataError: another model made the vectors.
    """
    from fmrt.jobs import space_of

    if provenance is None:
        return
    if provenance["space"] != space_of(bundle.manifest):
        raise DataError(
            f"{args.embeddings!r} was embedded with {provenance['model']!r}, whose vectors "
            f"those of {bundle.manifest.source.model!r} cannot be compared with: search with the "
            "bundle that embedded it, or say --ignore-provenance"
        )
    if args.truncate_dim is None:
        args.truncate_dim = provenance["truncate_dim"]


def _query(args: argparse.Namespace, bundle: Bundle) -> NDArray[Any]:
    from fmrt.embedder import Embedder

    with Embedder(bundle, variant=args.variant, provider=args.provider) as embedder:
        try:
            return embedder.embed_query(args.query, options_of(args), show_progress=False)
        except InputError as e:
            raise InputError(f"the query: {e.reason}") from None


def _texts(
    records: Iterable[Record | BadRecord],
    hits: Sequence[Hit],
    lines: NDArray[np.int64] | None,
    rows: int,
) -> list[str]:
    """Texts of the hits, read from the file that was embedded.

    Args:
        records: all records of the file.
        hits: whose texts.
        lines: the line of each row; None when every record has a row.
        rows: how many rows there are.

    Raises:
        DataError: the file is not the one that was embedded.
    """
    wanted = {hit.row if lines is None else int(lines[hit.row]) for hit in hits}
    found: dict[int, str] = {}
    total = 0
    for position, record in enumerate(records):
        total += 1
        key = position if lines is None else record.number
        if key in wanted:
            found[key] = str(getattr(record, "value", ""))
    if lines is None and total != rows:
        raise DataError(
            f"--texts has {count(total, 'record')}, and there are {count(rows, 'vector')}: give "
            "the file that was embedded"
        )
    if len(found) < len(wanted):
        line = min(wanted - found.keys())
        raise DataError(f"--texts has no record at line {line}: give the file that was embedded")
    return [found[hit.row if lines is None else int(lines[hit.row])] for hit in hits]


def _values(
    hits: Sequence[Hit], texts: Sequence[str] | None, lines: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    return [
        {
            "rank": i + 1,
            "row": hit.row,
            "score": hit.score,
            "line": None if lines is None else int(lines[hit.row]),
            "text": None if texts is None else texts[i],
        }
        for i, hit in enumerate(hits)
    ]


def _table(hits: Sequence[Hit], texts: Sequence[str] | None) -> str:
    cells = [(f"{i}", f"{hit.score:.4f}", f"{hit.row}") for i, hit in enumerate(hits, 1)]
    if texts is None:
        return table(_NUMBERS, cells, _NUMBERS)
    taken = len(table(_NUMBERS, cells, _NUMBERS).splitlines()[0]) + 2
    room = max(_LEAST_TEXT, shutil.get_terminal_size((_WIDTH, 0)).columns - taken)
    rows = [(*row, shortened(text, room)) for row, text in zip(cells, texts, strict=True)]
    return table((*_NUMBERS, "text"), rows, _NUMBERS)
