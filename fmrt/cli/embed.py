"""``fmrt embed``: texts, images or sounds become a file of vectors, in bounded memory."""

from __future__ import annotations

import argparse
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import (
    Subparsers,
    add_embedding,
    add_max_item_size,
    add_model,
    add_reading,
    byte_size,
    options_of,
    positive,
    reading_of,
)
from fmrt.cli._say import tell, warn
from fmrt.cli._status import DONE
from fmrt.cli._text import shortened
from fmrt.errors import DataError, OptionError, quoted
from fmrt.options import UNNAMED

if TYPE_CHECKING:
    from fmrt.cli._arguments import Parser


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "embed",
        help="embed a file of texts, or images or sounds",
        description="Embed the texts of a file or of standard input, the images or sounds of a "
        "folder, or those that a table names or holds, in bounded memory.",
    )
    parser.set_defaults(run=run, fail=parser.error)
    add_model(parser, UNNAMED)
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
        metavar="F",
        type=_shard_format,
        help="of shards: npy or parquet (default: npy, or parquet with --keep)",
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
        action=argparse.BooleanOptionalAction,
        help="record CUDA graphs of images and of few short texts, one batch at a time (default: "
        "for few items that come repeatedly, beside the batches of others)",
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
    from fmrt.jobs import embed_to_file, embed_to_folder

    if args.quiet and args.progress is None:
        args.progress = False
    _check_given(args)
    if _is_folder(args):
        shards = {"shard_rows": args.shard_rows, "shard_format": args.shard_format}
        embed_to_folder(args.bundle, args.input, args.output, **shards, **_how(args))
    else:
        embed_to_file(args.bundle, args.input, args.output, **_how(args))
    return DONE


def _how(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the API that both forms of output have."""
    return {
        "options": options_of(args).but({"show_progress": args.progress}),
        "reading": reading_of(args, keep=args.keep, on_error=args.on_error),
        "overwrite": args.overwrite,
        "report": partial(tell, args),
        "warn": warn,
        "variant": args.variant,
        "provider": args.provider,
        "revision": args.revision,
        "sha256": args.sha256,
        "workers": args.workers,
        "verify": not args.no_verify,
        "gpu_mem_limit": args.gpu_mem_limit,
        "cuda_graphs": args.cuda_graphs,
        "cache": args.cache,
        "max_item_bytes": args.max_item_size,
    }


def _is_folder(args: argparse.Namespace) -> bool:
    """Whether the output is a folder of shards.

    Raises:
        OptionError: It is not, and there is an option of shards.
    """
    separators = tuple(filter(None, (os.sep, os.altsep)))
    if args.output.endswith(separators) or Path(args.output).is_dir():
        return True
    if args.shard_rows or args.shard_format:
        raise OptionError(
            f"--shard-rows and --shard-format need a folder: say -o {args.output + os.sep!r}"
        )
    return False


def _check_given(args: argparse.Namespace) -> None:
    """Raise unless there is an input, and an output is named.

    Raises:
        DataError: There is no such input; what to do if it is a text itself.
        SystemExit: No output.
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


def _shard_format(text: str) -> str:
    from fmrt.data import shard_formats

    known = shard_formats()
    if text not in known:
        raise argparse.ArgumentTypeError(f"{text!r}; choose from: {', '.join(known)}")
    return text
