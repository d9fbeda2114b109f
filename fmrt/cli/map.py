"""``fmrt map``: a data set as a map of its embeddings."""

from __future__ import annotations

import argparse

from fmrt.cli._arguments import (
    Subparsers,
    add_embedding,
    add_variant,
    options_of,
    positive,
)
from fmrt.cli._say import tell
from fmrt.cli._status import DONE
from fmrt.cli.evaluate import COLUMNS, EMBEDDING, add_columns, whole

_GIVEN = (
    *COLUMNS,
    "method",
    "clusters",
    "seed",
    "vectors",
    "variant",
    "workers",
    "config",
    "data_revision",
    "package",
    "node_modules",
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "map",
        help="draw your data as a map of its embeddings",
        description="Embed DATA with BUNDLE, and draw each item as a point, near to those that it "
        "is like: as a page for a browser, with search, lasso and export, or as a picture. See "
        "docs/map.md. Needs fmrt[evaluate].",
    )
    parser.set_defaults(run=run)
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    parser.add_argument("data", metavar="DATA", help="as of fmrt evaluate")
    parser.add_argument(
        "-o", dest="out", metavar="FILE", required=True, help="ends in .html or .png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument(
        "--method",
        metavar="M",
        help="pca, tsne or, with the package umap-learn, umap (default: pca)",
    )
    parser.add_argument(
        "--clusters",
        metavar="N",
        type=positive,
        help="of k-means (default: as many as classes, or 8)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=whole, help="of t-SNE, UMAP and k-means (default: 0)"
    )
    parser.add_argument(
        "--vectors",
        metavar="EMBEDDINGS",
        help="what fmrt embed wrote of DATA, a row for each item: nothing is embedded again",
    )
    parser.add_argument(
        "--package",
        metavar="FILE.fmrt",
        help="put this package of the model into the page, to embed queries with in the browser",
    )
    parser.add_argument(
        "--node-modules",
        metavar="DIR",
        help="folder with npm's onnxruntime-web and @huggingface/tokenizers, which run the package "
        "(default: node_modules)",
    )
    add_variant(parser)
    parser.add_argument("--workers", metavar="N", type=positive, help="as of fmrt embed")
    add_embedding(parser, EMBEDDING)
    add_columns(parser)


def run(args: argparse.Namespace) -> int:
    """Draw, and say what was decided."""
    from fmrt._api import draw_map  # start-up stays quick

    given = {name: getattr(args, name) for name in _GIVEN if getattr(args, name) is not None}
    lines = draw_map(
        args.bundle,
        args.data,
        args.out,
        provider=args.provider,
        on_error=args.on_error,
        overwrite=args.overwrite,
        options=options_of(args),
        **given,
    )
    for line in lines:
        tell(args, line)
    tell(args, f"wrote {args.out}")
    return DONE
