"""``fmrt search``: the embedded texts that are nearest to a query."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import (
    Subparsers,
    add_embedding,
    add_max_item_size,
    add_model,
    add_reading,
    check_reading_is_used,
    options_of,
    positive,
    reading_of,
)
from fmrt.cli._say import print_json
from fmrt.cli._status import DONE
from fmrt.cli._text import shortened, table
from fmrt.options import UNNAMED

if TYPE_CHECKING:
    from fmrt.nearest import Hit

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
    add_model(parser, UNNAMED)
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
    add_max_item_size(parser)
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
        DataError: The vectors or texts cannot be used, or do not belong together.
    """
    from fmrt.nearest import search

    check_reading_is_used(args)
    hits = search(
        args.bundle,
        args.embeddings,
        args.query,
        options_of(args),
        k=args.k,
        texts=args.texts,
        reading=reading_of(args),
        check_provenance=not args.ignore_provenance,
        variant=args.variant,
        provider=args.provider,
        revision=args.revision,
        sha256=args.sha256,
        max_item_bytes=args.max_item_size,
    )
    if args.json:
        print_json({"query": args.query, "hits": _values(hits)})
    elif args.quiet:
        print("\n".join(str(hit.row) for hit in hits))
    else:
        print(_table(hits))
    return DONE


def _values(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, 1)]


def _table(hits: Sequence[Hit]) -> str:
    cells = [(f"{i}", f"{hit.score:.4f}", f"{hit.row}") for i, hit in enumerate(hits, 1)]
    texts = [hit.text for hit in hits if hit.text is not None]
    if len(texts) < len(hits):
        return table(_NUMBERS, cells, _NUMBERS)
    taken = len(table(_NUMBERS, cells, _NUMBERS).splitlines()[0]) + 2
    room = max(_LEAST_TEXT, shutil.get_terminal_size((_WIDTH, 0)).columns - taken)
    rows = [(*row, shortened(text, room)) for row, text in zip(cells, texts, strict=True)]
    return table((*_NUMBERS, "text"), rows, _NUMBERS)
