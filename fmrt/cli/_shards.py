"""``fmrt embed -o FOLDER/``: a job that goes on where it was cut."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt._version import __version__
from fmrt.bundle import Bundle, sha256
from fmrt.cli._arguments import flag_of
from fmrt.cli._input import Input
from fmrt.cli._say import tell
from fmrt.cli._stream import embed_stream, form_of, open_embedder, provenance, summary
from fmrt.data import BadRecord, Record
from fmrt.data.fingerprint import Fingerprint
from fmrt.embed_options import SHOWN
from fmrt.errors import DataError, FmrtError, InputError, OptionError
from fmrt.jobs import Folder, Setting, ShardSink, merged
from fmrt.manifest import MANIFEST_FILE
from fmrt.session import runtime_version
from fmrt.words import count

if TYPE_CHECKING:
    from fmrt.request import Request

# A few minutes' work for a model like MiniLM on two cores.
SHARD_ROWS = 16_384
FORMATS = ("npy", "parquet")


def is_folder(args: argparse.Namespace) -> bool:
    """Whether the output is a folder of shards.

    Raises:
        OptionError: it is not, and there is an option of shards.
    """
    separators = tuple(filter(None, (os.sep, os.altsep)))
    if args.output.endswith(separators) or Path(args.output).is_dir():
        return True
    if args.shard_rows or args.shard_format:
        raise OptionError(
            f"--shard-rows and --shard-format need a folder: say -o {args.output + os.sep!r}"
        )
    return False


class ShardJob:
    """One run of a job, new or not.

    Args:
        args: of the command.
        bundle: of the model.
        source: of the records.
        records: of the whole input.
        request: The options, as the model follows them.
        fingerprint: of the input.
        folder: of the job.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        bundle: Bundle,
        source: Input,
        records: Iterator[Record | BadRecord],
        request: Request,
        fingerprint: Fingerprint,
        folder: Folder,
    ) -> None:
        self._args, self._bundle, self._post = args, bundle, request.post
        self._source, self._records = source, records
        self._folder = folder
        self._seen = 0
        self._tower = request.tower
        self._shape = self._tower.shape(request.post.width)
        self._settings = merged(args.output, _settings(args, bundle, fingerprint), folder.settings)
        self._provenance = provenance(args, bundle, request)
        self._sink = ShardSink(
            folder,
            rows=self._settings["shard_rows"],
            extension=f".{self._settings['shard_format']}",
            shape=self._shape,
            dtype=request.post.precision.dtype,
            keep=args.keep,
            provenance=self._provenance,
            check=fingerprint.check,
        )

    def run(self) -> None:
        """Embed what is not there yet, and say so.

        Raises:
            KeyboardInterrupt: with what is safe, and how to go on.
        """
        for file in self._folder.check():
            _warn(f"{file} is not as it was written; its shard is computed again")
        if self._folder.complete:
            tell(self._args, f"{self._args.output} is complete: {self._state()}; nothing to do")
            return
        if self._folder.shards:
            tell(self._args, f"going on: {self._state()} are there")
        try:
            self._embed()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._hint()}") from None
        except FmrtError as e:
            if self._folder.shards:
                e.add_note(self._hint())
            raise
        finally:
            self._sink.abort()

    def _embed(self) -> None:
        with open_embedder(self._args, self._bundle) as embedder:
            start = time.perf_counter()
            # Another machine, or another measurement, may have another default.
            self._settings["batch_tokens"] = self._settings["batch_tokens"] or embedder.batch_tokens
            self._args.batch_tokens = self._settings["batch_tokens"]
            self._folder.begin(self._settings)
            embedded = embed_stream(
                self._args,
                embedder,
                self._missing(),
                raw=lambda item: self._source.raw(item[1]),
                reject=self._reject,
                write=self._sink.write,
                group_of=lambda item: self._sink.number(item[0]),
            )
        self._sink.finish(self._seen)
        if not self._folder.rows:
            raise DataError(f"nothing embedded of {self._args.input!r}: every record was skipped")
        facts = {
            "shape": self._shape,
            "dtype": str(self._post.precision.dtype),
            "provenance": self._provenance,
        }
        self._folder.finish(self._seen, facts)
        form = form_of(self._tower, self._post.dim)
        done = summary(embedded, self._args.modality, form, time.perf_counter() - start)
        tell(self._args, f"embedded {done} -> {self._args.output}: {self._state()} in all")

    def _missing(self) -> Iterator[tuple[int, Record]]:
        """Records of shards that are not there, with their number from 0."""
        for number, record in enumerate(self._records):
            self._seen = number + 1
            if self._sink.is_done(number):
                continue
            if isinstance(record, BadRecord):
                self._reject((number, record), InputError(record.reason))
            else:
                yield number, record

    def _reject(self, item: tuple[int, Record | BadRecord], error: InputError) -> None:
        self._source.reject(item[1], error)

    def _state(self) -> str:
        rows, shards = self._folder.rows, len(self._folder.shards)
        return f"{count(rows, 'row')} in {count(shards, 'shard')}"

    def _hint(self) -> str:
        command = "the same command"
        if self._args.overwrite:
            command += " without --overwrite"
        return f"{self._state()} are safe in {self._args.output!r}: {command} goes on from there"


def run_shards(
    args: argparse.Namespace,
    bundle: Bundle,
    source: Input,
    records: Iterator[Record | BadRecord],
    request: Request,
) -> int:
    """Run a job."""
    if args.shard_format is None and args.keep:
        args.shard_format = "parquet"
    if args.keep and args.shard_format == "npy":
        raise OptionError("--shard-format npy holds vectors only; leave out --keep")
    fingerprint = Fingerprint(args.input, args.modality)
    with Folder.opened(Path(args.output), overwrite=args.overwrite) as folder:
        job = ShardJob(args, bundle, source, records, request, fingerprint, folder)
        try:
            job.run()
        finally:
            source.report_skipped()
    return 0


def _settings(args: argparse.Namespace, bundle: Bundle, fingerprint: Fingerprint) -> list[Setting]:
    provider = args.provider.partition(":")[0]
    variant = bundle.variant(args.variant, provider, args.modality)
    return [
        Setting("input", "the name of the input", fingerprint.name),
        Setting("input_sha256", "the content of the input", fingerprint.sha256, hidden=True),
        Setting("bundle", "the bundle", sha256(bundle.path / MANIFEST_FILE), hidden=True),
        Setting("variant", "--variant", variant.name),
        Setting("provider", "--provider", provider),
        Setting("format", "--format", args.format),
        Setting("column", "--column", args.column),
        Setting("delimiter", "--delimiter", args.delimiter),
        Setting("no_header", "--no-header", None if args.header else True),
        Setting("keep", "--keep", list(dict.fromkeys(args.keep))),
        *(_setting(name, getattr(args, name)) for name in SHOWN),
        Setting("shard_rows", "--shard-rows", args.shard_rows, SHARD_ROWS, kept=True),
        Setting("shard_format", "--shard-format", args.shard_format, FORMATS[0], kept=True),
        Setting("fmrt", "the version of fmrt", __version__),
        Setting("onnxruntime", "the version of ONNX Runtime", runtime_version()),
    ]


def _setting(name: str, value: Any) -> Setting:  # noqa: ANN401
    """An option of embedding: a job keeps its batches, and a warning changes no vector."""
    if name == "on_too_long" and value != "error":
        value = "truncate"
    return Setting(name, flag_of(name), value, kept=name == "batch_tokens")


def _warn(line: str) -> None:
    print(f"fmrt: {line}", file=sys.stderr)
