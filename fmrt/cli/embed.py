"""``fmrt embed``: a file of texts becomes a file of vectors, in bounded memory."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import (
    Subparsers,
    add_model,
    add_prompt,
    add_reading,
    check_prompt_name,
    open_bundle,
    positive,
)
from fmrt.cli._text import count
from fmrt.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmrt.bundle import Bundle
    from fmrt.cli._arguments import Parser
    from fmrt.cli._input import Input
    from fmrt.cli._output import Output
    from fmrt.data import BadRecord, Record
    from fmrt.postprocess import Postprocess


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "embed",
        help="embed a file of texts",
        description="Embed the texts of a file, or of standard input, in bounded memory.",
    )
    parser.set_defaults(run=run)
    add_model(parser)
    _add_files(parser)
    _add_embedding(parser)
    _add_running(parser)


def _add_files(parser: Parser) -> None:
    parser.add_argument("input", metavar="INPUT", help="a file of texts; - for standard input")
    parser.add_argument(
        "-o", "--output", metavar="OUTPUT", required=True, help="a .npy or .parquet file to write"
    )
    add_reading(parser)
    parser.add_argument(
        "--keep",
        metavar="COL",
        nargs="+",
        action="extend",
        default=[],
        help="columns to carry along into .parquet; 'line' is the record's number",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT")
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a record that holds no usable text: end without output, or list it and go on; "
        "the lines of the rows of v.npy then go to v.lines.npy (default: fail)",
    )


def _add_embedding(parser: Parser) -> None:
    add_prompt(parser, "the model's own default")
    parser.add_argument(
        "--on-too-long",
        metavar="WHAT",
        default="truncate-and-warn",
        help="at a text with too many tokens: truncate-and-warn, truncate, or error "
        "(default: truncate-and-warn)",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        default="float32",
        help="float32, float16, int8, uint8 or binary (default: float32)",
    )
    parser.add_argument(
        "--truncate-dim",
        metavar="N",
        type=positive,
        help="keep the first N dimensions (Matryoshka)",
    )
    parser.add_argument(
        "--normalize",
        action="store_const",
        const=True,
        help="bring vectors to unit length (default: as the model does)",
    )


def _add_running(parser: Parser) -> None:
    parser.add_argument(
        "--batch-tokens", metavar="N", type=positive, help="most tokens of a batch (default: 512)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="batches at a time (default: one a core)"
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
    """Embed, and say on standard error what was done; without success there is no output."""
    from fmrt.cli._input import Input  # noqa: PLC0415  # start-up stays quick
    from fmrt.cli._output import check_output, opened  # noqa: PLC0415
    from fmrt.data import read_records  # noqa: PLC0415

    check_output(args.output, args.keep, overwrite=args.overwrite)
    records = read_records(args.input, format=args.format, column=args.column, keep=args.keep)
    bundle, args.provider = open_bundle(args)
    post = _checked_options(args, bundle)
    skip = args.on_error == "skip"
    source = Input(args.input, args.format, skip=skip)
    with opened(
        args.output,
        width=post.width,
        dtype=post.precision.dtype,
        keep=args.keep,
        overwrite=args.overwrite,
        skip=skip,
    ) as output:
        try:
            seconds = _embed(args, bundle, source, records, output)
        finally:
            source.report_skipped()
        lines = output.commit(skipped=source.skipped > 0)
    _say(f"embedded {_summary(source.embedded, post.dim, seconds)} -> {args.output}")
    if lines is not None:
        _say(f"line numbers of the rows -> {lines}")
    return 0


def _checked_options(args: argparse.Namespace, bundle: Bundle) -> Postprocess:
    """The form of the vectors; options that the model cannot follow are refused before its load."""
    from fmrt.postprocess import make_postprocess  # noqa: PLC0415  # start-up stays quick
    from fmrt.preprocess.text import check_on_too_long  # noqa: PLC0415

    check_on_too_long(args.on_too_long)
    check_prompt_name(bundle.manifest, args.prompt_name)
    return make_postprocess(
        dim=bundle.manifest.dim,
        normalized=bundle.manifest.normalize,
        truncate_dim=args.truncate_dim,
        normalize=args.normalize,
        precision=args.precision,
        reference=lambda: bundle.reference().embeddings,
    )


def _embed(
    args: argparse.Namespace,
    bundle: Bundle,
    source: Input,
    records: Iterator[Record | BadRecord],
    output: Output,
) -> float:
    """Write the vectors of the usable records; return the seconds it took, without the load."""
    from fmrt.embedder import Embedder  # noqa: PLC0415  # start-up stays quick
    from fmrt.progress import Progress  # noqa: PLC0415

    with Embedder(
        bundle,
        variant=args.variant,
        provider=args.provider,
        workers=args.workers,
        verify=not args.no_verify,
    ) as embedder:
        start = time.perf_counter()
        stream = embedder.embed_items(
            source.usable(records), lambda record: record.text, **_embedding_options(args)
        )
        with Progress(None, args.progress) as progress:
            try:
                for window, vectors in stream:
                    output.write(window, vectors)
                    source.done(window)
                    progress.advance(len(window))
            except InputError as e:
                raise source.located(e) from None
        if not source.embedded:
            raise DataError(f"no texts in {args.input!r}: every record was skipped")
        return time.perf_counter() - start


def _embedding_options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("prompt_name", "prompt", "batch_tokens", "truncate_dim", "normalize", "precision")
    return {name: getattr(args, name) for name in (*names, "on_too_long")}


def _summary(texts: int, dim: int, seconds: float) -> str:
    rate = texts / max(seconds, 1e-9)
    return (
        f"{count(texts, 'text')}, {count(dim, 'dimension')}, in {seconds:.1f} s "
        f"({rate:,.0f} texts/s)"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
