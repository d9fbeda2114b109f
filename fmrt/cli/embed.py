"""Embed the texts of a file to a .npy or .parquet file.

Bad records are reported with their line; the output appears under its name only when complete.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from fmrt.cli._common import add_bundle, add_prompt, add_runtime
from fmrt.data import BadRecord, Record, Writer, open_writer, read_records
from fmrt.embedder import Embedder
from fmrt.errors import DataError, InputError
from fmrt.postprocess import PRECISIONS
from fmrt.preprocess.text import check_text
from fmrt.progress import Progress

LISTED = 10
LINES_SUFFIX = ".lines.npy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_bundle(parser)
    parser.add_argument(
        "input", help=".txt, .jsonl, .csv, .tsv or .parquet, or - for standard input"
    )
    parser.add_argument("-o", "--output", required=True, help=".npy or .parquet")
    parser.add_argument("--column", help="column or key of the texts (default: text)")
    parser.add_argument("--format", help="format of the input (default: by its extension)")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="COLUMN", help="columns to carry along to .parquet"
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="what a record that cannot be embedded does (default: fail)",
    )
    parser.add_argument(
        "--on-too-long",
        choices=("truncate-and-warn", "truncate", "error"),
        default="truncate-and-warn",
        help="what a text over the maximum length does",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    add_prompt(parser)
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="float32")
    parser.add_argument("--truncate-dim", type=int, help="keep the first dimensions (Matryoshka)")
    parser.add_argument(
        "--normalize",
        action="store_true",
        default=None,
        help="unit length, where the model does not do that itself",
    )
    parser.add_argument("--batch-tokens", type=int, help="most tokens of a batch, with padding")
    parser.add_argument("--workers", type=int, help="parallel batches (default: one a core)")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress (default: on a terminal)",
    )
    add_runtime(parser)


@dataclass
class Source:
    """The records of the input file, checked; remembers their lines for messages and for .npy.

    Attributes:
        path: of the input.
        skip: whether to leave bad records out, or fail at the first.
        lines: 1-based line, or row, of every record passed on.
        skipped: records left out.
    """

    path: str
    skip: bool
    lines: array[int] = field(default_factory=lambda: array("q"))
    skipped: int = 0

    def checked(self, records: Iterator[Record | BadRecord]) -> Iterator[Record]:
        """Pass on the records that can be embedded.

        Raises:
            DataError: at a bad one, unless they are skipped.
        """
        for record in records:
            reason = _fault(record)
            if reason is None:
                self.lines.append(record.number)
                yield record  # type: ignore[misc]  # a BadRecord always has a fault
            elif self.skip:
                self._skip(record.number, reason)
            else:
                raise DataError(f"{self.where(record.number)}: {reason}")

    def where(self, number: int) -> str:
        """A place in the input, for messages."""
        kind = "row" if self.path.endswith(".parquet") else "line"
        return f"{'standard input' if self.path == '-' else self.path} {kind} {number:,}"

    def _skip(self, number: int, reason: str) -> None:
        self.skipped += 1
        if self.skipped <= LISTED:
            print(f"fmrt: skipped {self.where(number)}: {reason}", file=sys.stderr)
        elif self.skipped == LISTED + 1:
            print("fmrt: more are skipped, and counted at the end", file=sys.stderr)


def _fault(record: Record | BadRecord) -> str | None:
    if isinstance(record, BadRecord):
        return record.reason
    try:
        check_text(record.text)
    except InputError as e:
        return e.reason
    return None


def run(args: argparse.Namespace) -> int:
    """Embed the input, write the output, and say how fast that was."""
    sidecar = _sidecar(args)
    read = read_records(args.input, format=args.format, column=args.column, keep=args.keep)
    records, source = iter(read), Source(args.input, args.on_error == "skip")
    checked = source.checked(records)
    # The first record is read before the model: a wrong file or column shows at once.
    first = next(checked, None)
    if first is None:
        raise DataError(f"no texts in {'standard input' if args.input == '-' else args.input}")
    # An output that cannot be is refused before the model loads, too.
    open_writer(
        args.output, dim=1, dtype=np.dtype(np.float32), keep=args.keep, overwrite=args.overwrite
    ).abort()
    with Embedder.from_pretrained(
        args.bundle, variant=args.variant, provider=args.provider, workers=args.workers
    ) as embedder:
        start = time.perf_counter()
        count, width = _embed(args, embedder, chain((first,), checked), source)
        seconds = time.perf_counter() - start
    if source.skipped and sidecar is not None:
        _write_lines(source.lines, sidecar)
    _report(args, source, count, width, seconds)
    return 0


def _embed(
    args: argparse.Namespace, embedder: Embedder, records: Iterator[Record], source: Source
) -> tuple[int, int]:
    """Write all vectors; returns rows and elements a row."""
    windows = embedder.embed_items(
        records,
        lambda record: record.text,
        prompt_name=args.prompt_name,
        prompt=args.prompt,
        batch_tokens=args.batch_tokens,
        truncate_dim=args.truncate_dim,
        normalize=args.normalize,
        precision=args.precision,
        on_too_long=args.on_too_long,
    )
    count, width = 0, 0
    writer: Writer | None = None
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(None, args.progress))
        try:
            for items, vectors in windows:
                if writer is None:
                    width = vectors.shape[1]
                    writer = open_writer(
                        args.output,
                        dim=width,
                        dtype=vectors.dtype,
                        keep=args.keep,
                        overwrite=args.overwrite,
                    )
                    stack.callback(writer.abort)
                writer.write(vectors, [record.kept for record in items])
                count += len(items)
                progress.advance(len(items))
        except InputError as e:
            if e.index is None:
                raise
            raise DataError(f"{source.where(source.lines[e.index])}: {e.reason}") from e
        if writer is not None:
            writer.commit()
    return count, width


def _sidecar(args: argparse.Namespace) -> Path | None:
    """Where the line numbers of a .npy file's rows go when records are skipped."""
    output = Path(args.output)
    if args.on_error != "skip" or output.suffix.lower() != ".npy":
        return None
    sidecar = output.with_suffix(LINES_SUFFIX)
    if sidecar.exists() and not args.overwrite:
        raise DataError(f"{str(sidecar)!r} exists; say --overwrite or give another name")
    # Left from an earlier run it would number the rows of other vectors.
    sidecar.unlink(missing_ok=True)
    return sidecar


def _write_lines(lines: array[int], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, np.array(lines, np.int64))
    partial.replace(path)


def _report(
    args: argparse.Namespace, source: Source, count: int, width: int, seconds: float
) -> None:
    skipped = f", {source.skipped:,} skipped" if source.skipped else ""
    if source.skipped and args.output.lower().endswith(".npy"):
        skipped += f" (line numbers of the rows in {Path(args.output).with_suffix(LINES_SUFFIX)})"
    print(
        f"embedded {count:,} texts{skipped}, {width} x {args.precision}, in {seconds:.1f} s "
        f"({count / seconds:,.0f} texts/s) -> {args.output}",
        file=sys.stderr,
    )
