"""Evaluate bundles on a data set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import MANIFEST_FILE
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.against import compared
from fmrt.evaluation.columns import Columns
from fmrt.evaluation.dataset import Dataset, Side
from fmrt.evaluation.load import load_dataset
from fmrt.evaluation.measures import Measure, measured
from fmrt.evaluation.model import (
    PYTORCH,
    BundleModel,
    Cost,
    Model,
    OriginalModel,
    check_precision,
)
from fmrt.evaluation.neighbours import Vectors
from fmrt.evaluation.notes import notes_on
from fmrt.evaluation.reading import Reading
from fmrt.evaluation.report import Against, Evaluation, ModelResult, TaskResult
from fmrt.evaluation.settings import FAIL, SKIP, Settings
from fmrt.evaluation.tasks import PROMPTS, SEGMENT, TASKS, Embedded, Task
from fmrt.options import checked

_PACKAGES = ("fmrt", "numpy", "onnxruntime", "scikit-learn", "scipy")
_BUNDLES = str | Path | Bundle | Sequence[str | Path | Bundle]
_OF_LOADING = ("workers", "intra_op_threads", "verify", "gpu_mem_limit", "cuda_graphs", "cache")


def evaluate(
    bundles: _BUNDLES,
    data: str | Path | Dataset,
    *,
    tasks: Sequence[str] | None = None,
    against: str | Path | None = None,
    variants: Sequence[str | None] | None = None,
    provider: str = "cpu",
    on_error: str = FAIL,
    config: str | None = None,
    data_revision: str | None = None,
    options: EmbedOptions = DEFAULTS,
    **more: Any,
) -> Evaluation:
    """Embed a data set with one bundle or several, and test the embeddings.

    Args:
        bundles: The directory or hub id of a bundle, or several of them.
        data: A folder with one subfolder per class; a csv, tsv, jsonl or parquet file, or a folder
            of such files by split; a folder in BEIR's layout; a folder of Hugging Face's
            ``save_to_disk``; ``owner/name`` of a data set on the Hugging Face hub, or a folder
            that it was downloaded to; ``digits`` or ``20newsgroups`` of scikit-learn; or a
            `fmrt.evaluation.Dataset`. See docs/evaluation.md.
        tasks: The names of tasks; default all that the data is suitable for.
        against: A variant of the bundle, another bundle, ``pytorch`` or ``pytorch:DIRECTORY``. Each
            result then has its differences from it.
        variants: The variants of each bundle; default the provider's own fp32 graph.
        provider: The execution provider, as for `fmrt.Embedder`.
        on_error: ``fail`` stops at an item that cannot be used; ``skip`` leaves it out for all
            models.
        config: The configuration of a data set on the hub that has several.
        data_revision: The branch, tag or commit of a data set on the hub.
        options: The options of embedding; see `fmrt.EmbedOptions`. Their modality is that of the
            data, where the bundle has several.
        more: Fields of `fmrt.evaluation.Columns` and `fmrt.evaluation.Settings`, options of
            `fmrt.Embedder`, or changes of ``options``.

    Raises:
        DataError: There is no such data set, or it is not suitable for a task that is named, or
            for any task.
        InputError: An item cannot be used, and ``on_error`` is ``fail``.
        OptionError: An option makes no sense for this bundle or data set.
        BundleError: A bundle cannot be used.
    """
    columns, settings = Columns(**_taken(more, Columns)), Settings(**_taken(more, Settings))
    loading = {name: more.pop(name) for name in _OF_LOADING if name in more}
    embedding = options.but(more)
    _check(on_error, embedding)
    checked(tasks=tasks, against=against, variants=variants, provider=provider)
    wanted, opened = _tasks(tasks), _opened(bundles)
    pairs = [(b, v) for b in opened for v in variants or [None]]
    models = [BundleModel(b, v, provider, embedding, loading) for b, v in pairs]
    described = [m.describe() for m in models]
    other = _other(against, opened[0], provider, embedding, loading)
    modalities = [m for m in opened[0].manifest.modalities if _all_embed(opened, m)]
    load = partial(load_dataset, columns=columns, config=config, data_revision=data_revision)
    found = load(data, modalities, modality=embedding.modality, on_error=on_error)
    abilities = [*modalities, *([SEGMENT] if all(map(_segments, opened)) else [])]
    run = _Run(found, settings, on_error, abilities, named=tasks is not None)
    return run.evaluation(wanted, list(zip(described, models, strict=True)), other)


@dataclasses.dataclass
class _One:
    """A model's vectors of the remaining data set by side; prompts are a side too."""

    model: Model
    vectors: dict[str, Vectors]
    failed: Mapping[str, Mapping[int, str]]
    cost: Cost
    found: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def main(self) -> Vectors:
        """The vectors of the data's first side."""
        return next(iter(self.vectors.values()))


class _Run:
    """The data set of an evaluation on its way through the models and the tasks."""

    def __init__(
        self,
        data: Dataset,
        settings: Settings,
        on_error: str,
        abilities: Sequence[str],
        *,
        named: bool,
    ) -> None:
        self.data, self.settings = data, settings
        self.tasks: Sequence[Task] = ()
        self._reading = Reading(on_error)
        self._fitting = partial(_fitting, modalities=abilities, named=named)

    def evaluation(
        self,
        wanted: Sequence[Task],
        models: Sequence[tuple[Mapping[str, Any], Model]],
        other: Model | None,
    ) -> Evaluation:
        """Embed with every model, and run the tasks that the data is suitable for.

        Args:
            wanted: The tasks.
            models: Each model, after what it says about itself.
            other: The model that the others are compared with.

        Raises:
            DataError: The data is not suitable for a task that is named, or for any task.
        """
        self.tasks, skipped = self._fitting(wanted, self.data)
        embedded = [self.embed(model) for _, model in models]
        reference = None if other is None else self.embed(other)
        self.leave_out(embedded if reference is None else [*embedded, reference])
        self.tasks, more_skipped = self._fitting(self.tasks, self.data)
        results = [self.result(d, one) for (d, _), one in zip(models, embedded, strict=True)]
        if other is not None and reference is not None:
            results = [
                dataclasses.replace(result, against=self._compared(other, one, reference))
                for result, one in zip(results, embedded, strict=True)
            ]
        settings = {**dataclasses.asdict(self.settings), "tasks": [t.name for t in self.tasks]}
        return Evaluation(
            data=_described(self.data),
            settings=settings,
            packages={name: version(name) for name in _PACKAGES},
            choices=self.data.choices,
            notes=(*self.data.notes, *notes_on(self.data)),
            skipped=skipped | more_skipped,
            models=tuple(results),
        )

    def _compared(self, other: Model, one: _One, reference: _One) -> Against:
        pair = (self.measures(one), one.main), (self.measures(reference), reference.main)
        return compared(other.describe(), *pair, self.settings)

    def embed(self, model: Model) -> _One:
        """Embed all sides, and the texts that tasks ask for as well."""
        sides = dict(self.data.sides)
        for task in self.tasks:
            if task.prompts is not None:
                texts = task.prompts(self.data, self.settings)
                sides[PROMPTS] = Side(texts, [f"class {t!r}" for t in texts])
        found = model.embed(sides)
        for name, failed in found.failed.items():
            for row, reason in failed.items():
                place = f"{self.data.name!r}, {sides[name].places[row]}"
                self._reading.left_out(place, reason)
        return _One(model, dict(found.vectors), found.failed, found.cost)

    def leave_out(self, embedded: Iterable[_One]) -> None:
        """Leave out, for all models, the items that one of them could not embed."""
        all_of_them = list(embedded)
        bad = {
            name: {r for one in all_of_them for r in one.failed[name]} for name in self.data.sides
        }
        if not any(bad.values()):
            return
        data, kept = self.data.without(bad)
        self.data = dataclasses.replace(data, notes=(*data.notes, *self._reading.notes()))
        for one in all_of_them:
            for name, rows in kept.items():
                one.vectors[name] = one.vectors[name][rows]

    def measures(self, one: _One) -> dict[str, Sequence[Measure]]:
        """The measures by task, computed once."""
        self._look(one)
        return {name: found.measures for name, found in one.found.items()}

    def result(self, model: Mapping[str, Any], one: _One) -> ModelResult:
        """The measures of a model with their intervals."""
        self._look(one)
        all_of_them = [m for found in one.found.values() for m in found.measures]
        values = iter(measured(all_of_them, self.settings.resamples, self.settings.seed))
        tasks = tuple(
            TaskResult(name, tuple(islice(values, len(found.measures))), found.details)
            for name, found in one.found.items()
        )
        return ModelResult(model, one.main.shape[1], tasks, one.cost)

    def _look(self, one: _One) -> None:
        for task in self.tasks:
            if task.name not in one.found:
                seen = (
                    one.model.overlaps(self.data, self.settings.points) if task.segments else None
                )
                embedded = Embedded(self.data, one.vectors, self.settings, seen)
                one.found[task.name] = task.run(embedded)


def _taken(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take the fields of a dataclass out of options."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: options.pop(name) for name in names if name in options}


def _check(on_error: str, options: EmbedOptions) -> None:
    if not isinstance(on_error, str) or on_error not in (FAIL, SKIP):
        raise OptionError(f"on_error={quoted(on_error)}; choose {FAIL} or {SKIP}")
    check_precision(options)


def _opened(bundles: _BUNDLES) -> list[Bundle]:
    listed = [bundles] if isinstance(bundles, str | os.PathLike | Bundle) else bundles
    opened = [Bundle.opened(b) for b in listed]
    if not opened:
        raise OptionError("no bundle is given")
    return opened


def _segments(bundle: Bundle) -> bool:
    return any(head.task == SEGMENT for head in bundle.manifest.heads)


def _all_embed(bundles: Sequence[Bundle], modality: str) -> bool:
    return all(modality in bundle.manifest.modalities for bundle in bundles)


def _tasks(names: Sequence[str] | None) -> list[Task]:
    if names is None:
        return list(TASKS.values())
    for name in names:
        if name not in TASKS:
            raise OptionError(f"task {quoted(name)}; choose from: {', '.join(TASKS)}")
    return [TASKS[name] for name in dict.fromkeys(names)]


def _fitting(
    tasks: Sequence[Task], data: Dataset, modalities: Sequence[str], *, named: bool
) -> tuple[list[Task], dict[str, str]]:
    """The tasks that a data set is suitable for, and why it is not for the others of its kind.

    Raises:
        DataError: It is not suitable for a task that was named, or for any task.
    """
    found, skipped = [], {}
    for task in tasks:
        of_kind = task.kind in (None, data.kind)
        other = f"it is {data.kind} data, and the task is for {task.kind} data"
        problem = task.problem(data, modalities) if of_kind else other
        if problem is None:
            found.append(task)
        elif named:
            raise DataError(f"{data.name!r} does not do for the task {task.name!r}: {problem}")
        elif of_kind:
            skipped[task.name] = problem
    if not found:
        reasons = "; ".join(dict.fromkeys(skipped.values()))
        raise DataError(f"{data.name!r} does for no task: {reasons}")
    return found, skipped


def _other(
    against: str | Path | None,
    bundle: Bundle,
    provider: str,
    options: EmbedOptions,
    loading: Mapping[str, Any],
) -> Model | None:
    if against is None:
        return None
    name = os.fspath(against)
    kind, _, source = name.partition(":")
    if kind == PYTORCH:
        return OriginalModel(bundle, source or None, options)
    variants = {x for v in bundle.manifest.variants for x in (v.name, v.precision)}
    if name in variants and not (Path(name) / MANIFEST_FILE).is_file():
        return BundleModel(bundle, name, provider, options, loading)
    if "/" not in name and not Path(name).exists():
        raise OptionError(
            f"against={name!r} is neither a bundle nor a variant of {str(bundle.path)!r}; it has: "
            f"{', '.join(sorted(variants))}, and {PYTORCH}"
        )
    return BundleModel(Bundle.opened(name), None, provider, options, loading)


def _described(data: Dataset) -> dict[str, Any]:
    split = None if data.split is None else np.unique(data.split, return_counts=True)
    return {
        "name": data.name,
        "kind": data.kind,
        "items": {name: len(side.items) for name, side in data.sides.items()},
        "modality": next(iter(data.sides.values())).modality,
        "classes": len(data.classes) or None,
        "split": None if split is None else {str(k): int(n) for k, n in zip(*split, strict=True)},
        "sha256": data.sha256(),
    }
