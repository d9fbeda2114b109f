"""``fmrt tune``: the threads and batches that are fastest on this machine."""

from __future__ import annotations

import argparse

from fmrt.cli._arguments import (
    Subparsers,
    add_max_item_size,
    add_pin,
    add_reading,
    check_reading_is_used,
    positive,
    reading_of,
)
from fmrt.cli._say import show
from fmrt.cli._text import table
from fmrt.errors import DataError
from fmrt.system.limits import Limits

_TITLES = {
    "batch_tokens": "most tokens of a batch",
    "threads": "workers x threads in an operator",
    "query_threads": "threads for a single query",
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "tune",
        help="find the fastest threads and batches on this machine",
        description="Measure a variant on this CPU, in about a minute, and leave the result in the "
        "cache directory (FMRT_CACHE, or the platform's), where every later run finds it. It "
        "applies to this graph, this CPU, these cores and this version of ONNX Runtime alone.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    add_pin(parser)
    parser.add_argument("--variant", metavar="V", help="as fmrt info lists them")
    parser.add_argument("--modality", metavar="M", help="text, image or audio (default: all)")
    add_items(parser)


def add_items(parser: argparse.ArgumentParser) -> None:
    """Add the file of texts to measure with."""
    parser.add_argument(
        "--texts", metavar="FILE", help="to measure with (default: random words, natural lengths)"
    )
    add_reading(parser)  # type: ignore[arg-type]
    add_max_item_size(parser)  # type: ignore[arg-type]
    parser.add_argument(
        "--items", metavar="N", type=positive, default=1000, help="most items (default: 1000)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print a table a choice, and write the result."""
    from fmrt.bundle.bundle import Bundle
    from fmrt.embedding.engine import Engine
    from fmrt.embedding.tuning import save_tuning
    from fmrt.measure import tune

    bundle = Bundle.open(args.bundle, args.sha256, args.revision)
    names = bundle.manifest.modalities if args.modality is None else (args.modality,)
    for modality in names:
        engine = Engine(bundle, args.variant, "cpu", modality)
        try:
            items = items_of(args, engine, bundle)
        finally:
            engine.close()
        tuned = tune(bundle, items, args.variant, modality)
        for key, title in _TITLES.items():
            rows = [(choice, f"{speed:.2f}") for choice, speed in tuned.measured[key].items()]
            show(args, table((title, "speed"), rows, ("speed",)) + "\n")
        file = save_tuning(engine.variant, tuned.tuning, dict(tuned.measured))
        best = tuned.tuning
        show(
            args,
            f"best: {best.workers} workers, {best.intra_op_threads} threads in an operator, "
            f"batches of {best.batch_tokens} tokens, {best.query_threads} threads for a query\n"
            f"written to {file}",
        )
    return 0


def items_of(args: argparse.Namespace, engine: object, bundle: object) -> list[object]:
    """Distinct items of ``--texts``, or made ones.

    Raises:
        DataError: The file has none that can be used.
    """
    from itertools import islice

    from fmrt.data import Record
    from fmrt.measure import sample_items

    check_reading_is_used(args)
    if args.texts is None:
        return sample_items(engine, bundle, args.items)  # type: ignore[arg-type]
    records = reading_of(args).records(args.texts, "text", Limits(args.max_item_size))
    texts = (r.value for r in records if isinstance(r, Record))
    items: list[object] = list(islice(dict.fromkeys(islice(texts, 4 * args.items)), args.items))
    if not items:
        raise DataError(f"{args.texts!r} has no record that can be used")
    return items
