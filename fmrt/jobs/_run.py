"""What a run needs before a graph is loaded: the model, the records, and who is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fmrt.data import Reading, Records, as_reading, described, modality_of
from fmrt.embed_options import EmbedOptions
from fmrt.embedding.request import Request, make_request
from fmrt.errors import DataWarning
from fmrt.jobs._input import Input
from fmrt.jobs._provenance import provenance_of
from fmrt.loading import Given, Model, options_in
from fmrt.options import checked
from fmrt.system.limits import Limits
from fmrt.system.user_warning import warn_user
from fmrt.words import count

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One run, whose options are known to make sense.

    Attributes:
        model: The model that embeds.
        request: The options, as the model follows them.
        reading: The reading of the input.
        records: The records of the whole input.
        input: The input, which passes the records on.
        report: A function that takes a line about what was done.
        warn: A function that takes a line about what was chosen, passed over or skipped.
    """

    model: Model
    request: Request
    reading: Reading
    records: Records
    input: Input
    report: Say
    warn: Say

    @property
    def modality(self) -> str:
        """What is embedded."""
        return self.request.tower.modality

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item's vector, or of its vectors."""
        return self.request.tower.shape(self.request.post.width)

    def provenance(self) -> dict[str, Any]:
        """Where the vectors come from."""
        return provenance_of(self.model.bundle, self.model.variant(self.modality), self.request)


def make_run(
    given: Given,
    source: str,
    options: EmbedOptions,
    reading: Reading,
    report: Say | None,
    warn: Say | None,
    arguments: Mapping[str, Any],
) -> Run:
    """Open the bundle and the input; arguments are those of the public functions."""
    options = options_in(options, arguments)
    checked(report=report, warn=warn)
    reading = as_reading(reading)
    warn = warn or partial(warn_user, category=DataWarning)
    model = Model(given, arguments)
    modality = _modality(model, source, options, reading, warn)
    records = reading.records(source, modality, Limits(model.max_item_bytes))
    _tell_choices(records, source, warn)
    request = make_request(model.bundle, options.but({"modality": modality}))
    items = Input(
        source,
        reading.format,
        paths=modality != "text",
        skip=reading.on_error == "skip",
        table=records.table,
    )
    return Run(model, request, reading, records, items, report or _nobody, warn)


def _modality(model: Model, source: str, options: EmbedOptions, reading: Reading, warn: Say) -> str:
    """What the input holds: what was asked for, what it shows, or what the model embeds first."""
    manifest = model.bundle.manifest
    if options.modality is None and reading.format is None and len(manifest.modalities) > 1:
        found = modality_of(source, manifest.modalities)
        if found is not None:
            warn(f"{source!r} is taken for {found}; --modality says otherwise")
            return found
    return manifest.tower(options.modality).modality


def _tell_choices(records: Records, source: str, warn: Say) -> None:
    """Say what was chosen of an input, and what was left out."""
    for choice in records.choices:
        warn(choice)
    if records.passed_over:
        warn(f"passed over {count(len(records.passed_over), 'file')} in {source!r}:")
        for line in described(records.passed_over):
            warn(f"  {line}")


def _nobody(_: str) -> None:
    """Hear a line."""
