"""``fmrt embed``: texts, images or sounds become a file of vectors, in bounded memory."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fmrt.cli._arguments import (
    Subparsers,
    add_embedding,
    add_max_item_size,
    add_model,
    add_reading,
    byte_size,
    open_bundle,
    options_of,
    positive,
    reading_options,
)
from fmrt.cli._say import tell
from fmrt.cli._text import shortened
from fmrt.errors import DataError, quoted
from fmrt.limits import Limits
from fmrt.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmrt.bundle import Bundle
    from fmrt.cli._arguments import Parser
    from fmrt.cli._input import Input
    from fmrt.data import BadRecord, Record, Records
    from fmrt.request import Request


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "embed",
        help="embed a file of texts, or images or sounds",
        description="Embed the texts of a file or of standard input, the images or sounds of a "
        "folder, or those that a table names or holds, in bounded memory.",
    )
    parser.set_defaults(run=run, fail=parser.error)
    add_model(parser)
    _add_files(parser)
    add_embedding(parser)
    _add_running(parser)


def _add_files(parser: Parser) -> None:
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a file of texts, - for standard input; a folder of images or sounds, or a file "
        "with their paths or bytes",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        help="required: a .npy, .parquet or .jsonl file to write; - for JSON lines on standard "
        "output; or a folder, with / at its end, for shards of a job that goes on after an "
        "interruption, see docs/jobs.md",
    )
    parser.add_argument(
        "--shard-rows",
        metavar="N",
        type=positive,
        help="records of the input a shard (default: 16,384)",
    )
    parser.add_argument(
        "--shard-format",
        choices=("npy", "parquet"),
        help="of shards (default: npy, or parquet with --keep)",
    )
    add_reading(parser)
    parser.add_argument(
        "--keep",
        metavar="COL",
        nargs="+",
        action="extend",
        default=[],
        help="columns to carry along (not to .npy); 'line' is the record's number, 'path' a file's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT, start over")
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a record that cannot be embedded: end without output, or list it and go on; "
        "the lines of the rows of v.npy then go to v.lines.npy (default: fail)",
    )


def _add_running(parser: Parser) -> None:
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="keep vectors in this directory, and compute none that is there (default: no cache)",
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="batches at a time (default: one a core)"
    )
    parser.add_argument(
        "--gpu-mem-limit",
        metavar="SIZE",
        type=byte_size,
        help="most of each GPU's memory to take, as in 8GiB (default: all)",
    )
    add_max_item_size(parser)
    parser.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="record CUDA graphs of images and of few short texts",
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar (default: on a terminal)",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not check the model's vectors before the run"
    )


def run(args: argparse.Namespace) -> int:
    """Embed, and say on standard error what was done.

    Without success there is no output, unless it is a folder, which keeps its complete shards.
    """
    from fmrt.cli._input import Input
    from fmrt.cli._output import check_output
    from fmrt.cli._shards import is_folder, run_shards
    from fmrt.data import read_records
    from fmrt.request import make_request

    if args.quiet and args.progress is None:
        args.progress = False
    _check_given(args)
    folder = is_folder(args)
    if not folder:
        check_output(args.output, args.keep, overwrite=args.overwrite)
    bundle, args.provider = open_bundle(args)
    args.modality = _modality(args, bundle)
    records = read_records(
        args.input,
        keep=args.keep,
        modality=args.modality,
        limits=Limits(args.max_item_size),
        **reading_options(args),
    )
    _report(records, args.input)
    request = make_request(bundle, options_of(args))
    skip = args.on_error == "skip"
    paths = args.modality != "text"
    source = Input(args.input, args.format, paths=paths, skip=skip, table=records.table)
    if folder:
        return run_shards(args, bundle, source, records, request)
    return _run_file(args, bundle, source, records, request)


def _check_given(args: argparse.Namespace) -> None:
    """Raise unless there is an input, and an output is named.

    Raises:
        DataError: there is no such input; what to do if it is a text itself.
        SystemExit: no output.
    """
    text = args.input
    if text != "-" and not os.path.lexists(text) and (" " in text or not Path(text).suffix):
        piped = f"echo {shlex.quote(shortened(text, 60))}"
        raise DataError(
            f"no such file: {quoted(text)}; to embed a text itself: "
            f"{piped} | fmrt embed {shlex.quote(args.bundle)} - -o -"
        )
    if args.output is None:
        args.fail("the following arguments are required: -o/--output (- for standard output)")


def _modality(args: argparse.Namespace, bundle: Bundle) -> str:
    """What the input holds: what was asked for, what it shows, or what the model embeds first."""
    from fmrt.data._formats import modality_of

    several = bundle.manifest.modalities
    if args.modality is None and args.format is None and len(several) > 1:
        found = modality_of(args.input, several)
        if found is not None:
            _warn(f"{args.input!r} is taken for {found}; --modality says otherwise")
            return found
    return bundle.manifest.tower(args.modality).modality


def _report(records: Records, source: str) -> None:
    """Say what was chosen of an input, and what was left out."""
    from fmrt.data._folder import described

    for choice in records.choices:
        _warn(choice)
    if records.passed_over:
        _warn(f"passed over {count(len(records.passed_over), 'file')} in {source!r}:")
        for line in described(records.passed_over):
            _warn(f"  {line}")


def _run_file(
    args: argparse.Namespace,
    bundle: Bundle,
    source: Input,
    records: Iterator[Record | BadRecord],
    request: Request,
) -> int:
    """Embed into one file."""
    from fmrt.cli._output import opened
    from fmrt.cli._stream import embed_stream, form_of, open_embedder, provenance, summary

    with opened(
        args.output,
        shape=request.tower.shape(request.post.width),
        dtype=request.post.precision.dtype,
        keep=args.keep,
        overwrite=args.overwrite,
        skip=args.on_error == "skip",
        provenance=provenance(args, bundle, request),
    ) as output:
        try:
            with open_embedder(args, bundle) as embedder:
                start = time.perf_counter()
                embedded = embed_stream(
                    args,
                    embedder,
                    source.usable(records),
                    raw=source.raw,
                    reject=source.reject,
                    write=output.write,
                )
                seconds = time.perf_counter() - start
        finally:
            source.report_skipped()
        if not embedded:
            raise DataError(f"nothing embedded of {args.input!r}: every record was skipped")
        lines = output.commit(skipped=source.skipped > 0)
    form = form_of(request.tower, request.post.dim)
    done = summary(embedded, args.modality, form, seconds)
    tell(args, f"embedded {done} -> {'standard output' if args.output == '-' else args.output}")
    if lines is not None:
        tell(args, f"line numbers of the rows -> {lines}")
    return 0


def _warn(line: str) -> None:
    print(f"fmrt: {line}", file=sys.stderr)
