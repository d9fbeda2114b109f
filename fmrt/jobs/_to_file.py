"""Vectors into one file, all of it or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fmrt.data import AS_IT_SAYS, STDOUT, Reading, as_reading, kept_bytes
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.errors import DataError
from fmrt.jobs._output import Output, check_output, opened
from fmrt.jobs._result import Embedded
from fmrt.jobs._run import Run, Say, make_run
from fmrt.jobs._stream import embed_stream, summary
from fmrt.loading import Given, takes_model
from fmrt.options import checked


@takes_model
def embed_to_file(
    model: Given,
    source: str | Path,
    output: str | Path,
    options: EmbedOptions = DEFAULTS,
    *,
    reading: Reading = AS_IT_SAYS,
    overwrite: bool = False,
    report: Say | None = None,
    warn: Say | None = None,
    **arguments: Any,
) -> Embedded:
    """Embed the records of an input into one file, in bounded memory, as ``fmrt embed`` does.

    The file takes its name when it is complete; a run that fails leaves nothing.

    Args:
        model: A bundle's directory or its id on the hub, a `Bundle`, or an `Embedder`.
        source: A file of texts, ``-`` for standard input, a folder of images or sounds, or a table
            with their paths or bytes.
        output: A .npy, .parquet or .jsonl file; ``-`` for JSON lines on standard output.
        options: How to embed; see `EmbedOptions`.
        reading: How the input is read, and what happens at bad records.
        overwrite: Whether an output that is there is replaced.
        report: A function that takes a line about what was done.
        warn: The same for what was chosen, passed over or skipped; default a `DataWarning`.
        arguments: Options by name, instead of ``options``; for a bundle, those of `Embedder` too.

    Raises:
        DataError: An input or output that cannot be used, or every record was skipped.
        InputError: A record cannot be embedded, and is not to be skipped.
        OptionError: An option that makes no sense for this model.
        BundleError: The bundle cannot be used, as in `Embedder`.
    """
    checked(overwrite=overwrite)
    source, output = str(source), str(output)
    check_output(output, as_reading(reading).keep, overwrite=overwrite)
    run = make_run(model, source, options, reading, report, warn, arguments)
    with opened(
        output,
        shape=run.shape,
        dtype=run.request.post.precision.dtype,
        keep=run.reading.keep,
        overwrite=overwrite,
        skip=run.reading.on_error == "skip",
        provenance=run.provenance(),
    ) as vectors:
        try:
            rows, seconds = _embed(run, vectors)
        finally:
            run.input.report_skipped(run.warn)
        if not rows:
            raise DataError(f"nothing embedded of {source!r}: every record was skipped")
        files = vectors.commit(skipped=run.input.skipped > 0)
    done = summary(rows, run.request, seconds)
    run.report(f"embedded {done} -> {'standard output' if output == STDOUT else output}")
    if vectors.lines in files:
        run.report(f"line numbers of the rows -> {vectors.lines}")
    return Embedded(rows, rows, 0, run.input.skipped, seconds, files)


def _embed(run: Run, vectors: Output) -> tuple[int, float]:
    """Write all vectors; their number, and the seconds that it took."""
    with run.model.embedder(run.modality) as embedder:
        start = time.perf_counter()
        rows = embed_stream(
            embedder,
            run.request.options,
            run.input.usable(run.records),
            raw=run.input.raw,
            reject=run.input.reject,
            write=vectors.write,
            held_bytes=kept_bytes,
        )
        return rows, time.perf_counter() - start
