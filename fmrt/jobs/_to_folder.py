"""Vectors into shards of a folder, by a job that goes on where it was cut."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmrt._version import __version__
from fmrt.bundle.bundle import sha256
from fmrt.bundle.manifest import MANIFEST_FILE
from fmrt.data import AS_IT_SAYS, BadRecord, Reading, Record, kept_bytes, shard_formats
from fmrt.data.fingerprint import Fingerprint
from fmrt.embed_options import DEFAULTS, SHOWN, EmbedOptions
from fmrt.errors import DataError, FmrtError, InputError, OptionError
from fmrt.jobs._folder import Folder
from fmrt.jobs._result import Embedded
from fmrt.jobs._run import Run, Say, make_run
from fmrt.jobs._settings import Setting, merged
from fmrt.jobs._sink import ShardSink
from fmrt.jobs._stream import embed_stream, summary
from fmrt.loading import Given, takes_model
from fmrt.options import checked
from fmrt.session import runtime_version
from fmrt.words import count

# A few minutes' work for a model like MiniLM on two cores.
SHARD_ROWS = 16_384


@takes_model
def embed_to_folder(
    model: Given,
    source: str | Path,
    folder: str | Path,
    options: EmbedOptions = DEFAULTS,
    *,
    reading: Reading = AS_IT_SAYS,
    shard_rows: int | None = None,
    shard_format: str | None = None,
    overwrite: bool = False,
    report: Say | None = None,
    warn: Say | None = None,
    **arguments: Any,
) -> Embedded:
    """Embed the records of an input into shards of a folder, and go on where an earlier run ended.

    What was complete when a run ended, by whatever it was ended, is not computed again, and the
    bytes are those of a run that was never interrupted. See docs/jobs.md.

    Args:
        model: A bundle's directory or its id on the hub, a `Bundle`, or an `Embedder`.
        source: A file of texts, a folder of images or sounds, or a table with their paths or bytes.
        folder: The folder of the job, which is made if need be.
        options: How to embed; see `EmbedOptions`.
        reading: How the input is read, and what happens at bad records.
        shard_rows: The number of records of the input per shard; default 16,384, or what the job
            has.
        shard_format: The format of the shards, ``npy`` or ``parquet``; default npy, or parquet with
            columns to keep.
        overwrite: Whether the job that is there is removed, and a new one started.
        report: A function that takes a line about what was done.
        warn: A function that takes a line about what was chosen, passed over, skipped or computed
            again; default a `DataWarning`.
        arguments: Options by their names, instead of those of ``options``; and arguments of
            `Embedder` where ``model`` is a bundle.

    Raises:
        DataError: An input or a folder that cannot be used, a job that was started with other
            options, or every record was skipped.
        InputError: A record cannot be embedded, and is not to be skipped.
        OptionError: An option that makes no sense for this model or this job.
        BundleError: The bundle cannot be used, as in `Embedder`.
    """
    source, folder = str(source), str(folder)
    shard_rows, _, _ = checked(
        shard_rows=shard_rows, shard_format=shard_format, overwrite=overwrite
    )
    run = make_run(model, source, options, reading, report, warn, arguments)
    shard_format = _shard_format(shard_format, keeps=bool(reading.keep))
    fingerprint = Fingerprint(source, run.modality)
    with Folder.opened(Path(folder), overwrite=overwrite) as opened:
        settings = _settings(run, fingerprint, shard_rows, shard_format)
        job = _Job(run, source, folder, opened, settings, fingerprint, overwrite=overwrite)
        try:
            return job.run()
        finally:
            run.input.report_skipped(run.warn)


def _shard_format(name: str | None, *, keeps: bool) -> str | None:
    """What shards are written as, checked; None for the default, or what the job has."""
    known = shard_formats()
    if name is None:
        return next(n for n, f in known.items() if f.keeps_columns) if keeps else None
    if name not in known:
        raise OptionError(f"shard_format={name!r}; choose from: {', '.join(known)}")
    if keeps and not known[name].keeps_columns:
        raise OptionError(f"--shard-format {name} holds vectors only; leave out --keep")
    return name


class _Job:
    """One run of a job, new or not.

    Args:
        run: What is embedded.
        source: The path of the input.
        name: The name of the folder, for messages.
        folder: The folder of the job.
        settings: The settings of this run.
        fingerprint: The fingerprint of the input.
        overwrite: Whether an earlier job was removed.
    """

    def __init__(
        self,
        run: Run,
        source: str,
        name: str,
        folder: Folder,
        settings: list[Setting],
        fingerprint: Fingerprint,
        *,
        overwrite: bool,
    ) -> None:
        self._run, self._source, self._name, self._folder = run, source, name, folder
        self._overwrite = overwrite
        self._seen = 0
        self._settings = merged(name, settings, folder.settings)
        self._provenance = run.provenance()
        self._sink = ShardSink(
            folder,
            rows=self._settings["shard_rows"],
            extension=f".{self._settings['shard_format']}",
            shape=run.shape,
            dtype=run.request.post.precision.dtype,
            keep=run.reading.keep,
            provenance=self._provenance,
            check=fingerprint.check,
        )

    def run(self) -> Embedded:
        """Embed what is not there yet, and say so.

        Raises:
            KeyboardInterrupt: The user interrupted; says what is safe and how to go on.
        """
        for file in self._folder.check():
            self._run.warn(f"{file} is not as it was written; its shard is computed again")
        if self._folder.complete:
            self._run.report(f"{self._name} is complete: {self._state()}; nothing to do")
            return self._result(0, 0.0)
        if self._folder.shards:
            self._run.report(f"going on: {self._state()} are there")
        try:
            return self._embed()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._hint()}") from None
        except FmrtError as e:
            if self._folder.shards:
                e.add_note(self._hint())
            raise
        finally:
            self._sink.abort()

    def _embed(self) -> Embedded:
        run = self._run
        with run.model.embedder(run.modality) as embedder:
            start = time.perf_counter()
            # Another machine, or another measurement, may have another default.
            batch_tokens = self._settings["batch_tokens"] or embedder.batch_tokens_of(run.modality)
            self._settings["batch_tokens"] = batch_tokens
            self._folder.begin(self._settings)
            computed = embed_stream(
                embedder,
                dataclasses.replace(run.request.options, batch_tokens=batch_tokens),
                self._missing(),
                raw=lambda item: run.input.raw(item[1]),
                reject=self._reject,
                write=self._sink.write,
                held_bytes=lambda item: kept_bytes(item[1]),
                group_of=lambda item: self._sink.number(item[0]),
            )
        self._sink.finish(self._seen)
        if not self._folder.rows:
            raise DataError(f"nothing embedded of {self._source!r}: every record was skipped")
        facts = {
            "shape": run.shape,
            "dtype": str(run.request.post.precision.dtype),
            "provenance": self._provenance,
        }
        self._folder.finish(self._seen, facts)
        seconds = time.perf_counter() - start
        done = summary(computed, run.request, seconds)
        run.report(f"embedded {done} -> {self._name}: {self._state()} in all")
        return self._result(computed, seconds)

    def _result(self, computed: int, seconds: float) -> Embedded:
        shards = self._folder.shards.values()
        skipped = sum(shard.skipped for shard in shards)
        files = tuple(self._folder.files())
        return Embedded(self._folder.rows, computed, len(shards), skipped, seconds, files)

    def _missing(self) -> Iterator[tuple[int, Record]]:
        """Records of shards that are not there, with their number from 0."""
        for number, record in enumerate(self._run.records):
            self._seen = number + 1
            if self._sink.is_done(number):
                continue
            if isinstance(record, BadRecord):
                self._reject((number, record), InputError(record.reason))
            else:
                yield number, record

    def _reject(self, item: tuple[int, Record | BadRecord], error: InputError) -> None:
        self._run.input.reject(item[1], error)

    def _state(self) -> str:
        rows, shards = self._folder.rows, len(self._folder.shards)
        return f"{count(rows, 'row')} in {count(shards, 'shard')}"

    def _hint(self) -> str:
        command = "the same command"
        if self._overwrite:
            command += " without --overwrite"
        return f"{self._state()} are safe in {self._name!r}: {command} goes on from there"


def _settings(
    run: Run, fingerprint: Fingerprint, shard_rows: int | None, shard_format: str | None
) -> list[Setting]:
    bundle, reading = run.model.bundle, run.reading
    variant = run.model.variant(run.modality)
    return [
        Setting("input", "the name of the input", fingerprint.name),
        Setting("input_sha256", "the content of the input", fingerprint.sha256, hidden=True),
        Setting("bundle", "the bundle", sha256(bundle.path / MANIFEST_FILE), hidden=True),
        Setting("variant", "--variant", variant.name),
        Setting("provider", "--provider", run.model.provider(run.modality).partition(":")[0]),
        Setting("format", "--format", reading.format),
        Setting("column", "--column", reading.column),
        Setting("delimiter", "--delimiter", reading.delimiter),
        Setting("no_header", "--no-header", None if reading.header else True),
        Setting("keep", "--keep", list(reading.keep)),
        *(_setting(name, getattr(run.request.options, name)) for name in SHOWN),
        Setting("shard_rows", "--shard-rows", shard_rows, SHARD_ROWS, kept=True),
        Setting(
            "shard_format", "--shard-format", shard_format, next(iter(shard_formats())), kept=True
        ),
        Setting("fmrt", "the version of fmrt", __version__),
        Setting("onnxruntime", "the version of ONNX Runtime", runtime_version()),
    ]


def _setting(name: str, value: object) -> Setting:
    """An option of embedding: a job keeps its batches, and a warning changes no vector."""
    if name == "on_too_long" and value != "error":
        value = "truncate"
    flag = f"--{name.replace('_', '-')}"
    return Setting(name, flag, value, kept=name == "batch_tokens")
