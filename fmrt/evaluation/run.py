"""Evaluate bundles on a data set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
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
from fmrt.evaluation.report import Evaluation, ModelResult, TaskResult
from fmrt.evaluation.settings import FAIL, SKIP, Settings
from fmrt.evaluation.tasks import PROMPTS, TASKS, Embedded, Task

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
    options: EmbedOptions = DEFAULTS,
    **more: Any,
) -> Evaluation:
    """Embed a data set with one bundle or several, and test the embeddings.

    Args:
        bundles: directory or hub id of a bundle, or several.
        data: a folder with a subfolder a class; a csv, tsv, jsonl or parquet file, or a folder of
            such files by split; a folder in BEIR's layout; a folder of Hugging Face's
            ``save_to_disk``; ``digits`` or ``20newsgroups`` of scikit-learn; or a
            `fmrt.evaluation.Dataset`. See docs/evaluation.md.
        tasks: names of tasks; default all that the data does for.
        against: a variant of the bundle, another bundle, ``pytorch`` or ``pytorch:DIRECTORY``: each
            result then has its differences from that.
        variants: of each bundle; default the provider's own fp32 graph.
        provider: execution provider, as of `fmrt.Embedder`.
        on_error: ``fail`` at an item that cannot be used, or ``skip`` it for all models.
        options: how to embed; see `fmrt.EmbedOptions`. Its modality is that of the data, where the
            bundle has several.
        more: fields of `fmrt.evaluation.Columns` and `fmrt.evaluation.Settings`, options of
            `fmrt.Embedder`, or changes of ``options``.

    Raises:
        DataError: no such data set, or it does not do for a task that is named, or for any.
        InputError: an item cannot be used, and ``on_error`` is ``fail``.
        OptionError: an option that makes no sense for this bundle or data set.
        BundleError: a bundle cannot be used.
    """
    if on_error not in (FAIL, SKIP):
        raise OptionError(f"on_error={quoted(on_error)}; choose {FAIL} or {SKIP}")
    columns, settings = Columns(**_taken(more, Columns)), Settings(**_taken(more, Settings))
    loading = {name: more.pop(name) for name in _OF_LOADING if name in more}
    embedding = options.but(more)
    check_precision(embedding)
    wanted = _tasks(tasks)
    opened = [Bundle.opened(b) for b in _listed(bundles)]
    if not opened:
        raise OptionError("no bundle is given")
    models: list[Model] = [
        BundleModel(bundle, variant, provider, embedding, loading)
        for bundle in opened
        for variant in (variants or (None,))
    ]
    described = [m.describe() for m in models]
    other = _other(against, opened[0], provider, embedding, loading)
    modalities = [m for m in opened[0].manifest.modalities if _all_embed(opened, m)]
    found = load_dataset(
        data, modalities, modality=embedding.modality, columns=columns, on_error=on_error
    )
    chosen, skipped = _fitting(wanted, found, modalities, named=tasks is not None)
    run = _Run(found, chosen, settings, on_error)
    embedded = [run.embed(m) for m in (*models, *([other] if other is not None else []))]
    run.leave_out(embedded)
    chosen, more_skipped = _fitting(chosen, run.data, modalities, named=tasks is not None)
    run.tasks, skipped = chosen, skipped | more_skipped
    reference = run.measures(embedded[-1]) if other is not None else None
    results = []
    for model, one in zip(described, embedded, strict=False):
        result = run.result(model, one)
        if other is not None and reference is not None:
            pair = (run.measures(one), one.main), (reference, embedded[-1].main)
            comparison = compared(other.describe(), *pair, settings)
            result = dataclasses.replace(result, against=comparison)
        results.append(result)
    return Evaluation(
        data=_described(run.data),
        settings={**dataclasses.asdict(settings), "tasks": [t.name for t in chosen]},
        packages={name: version(name) for name in _PACKAGES},
        choices=run.data.choices,
        notes=(*run.data.notes, *notes_on(run.data)),
        skipped=skipped,
        models=tuple(results),
    )


@dataclasses.dataclass
class _One:
    """A model's vectors of the data set that is left, by side; those of prompts by side too."""

    vectors: dict[str, Vectors]
    failed: Mapping[str, Mapping[int, str]]
    cost: Cost
    found: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def main(self) -> Vectors:
        """Of the data's first side."""
        return next(iter(self.vectors.values()))


class _Run:
    """The data set of an evaluation on its way through the models and the tasks."""

    def __init__(
        self, data: Dataset, tasks: Sequence[Task], settings: Settings, on_error: str
    ) -> None:
        self.data, self.tasks, self.settings = data, tasks, settings
        self._reading = Reading(on_error)

    def embed(self, model: Model) -> _One:
        """Embed all sides, and what tasks ask for beside them."""
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
        return _One(dict(found.vectors), found.failed, found.cost)

    def leave_out(self, embedded: Iterable[_One]) -> None:
        """Leave items out that a model could not embed, for all models."""
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
        """Measures by task, computed once."""
        self._look(one)
        return {name: found.measures for name, found in one.found.items()}

    def result(self, model: Mapping[str, Any], one: _One) -> ModelResult:
        """The measures of a model with their intervals."""
        self._look(one)
        settings = self.settings
        tasks = tuple(
            TaskResult(
                name,
                tuple(measured(m, settings.resamples, settings.seed) for m in found.measures),
                found.details,
            )
            for name, found in one.found.items()
        )
        return ModelResult(model, one.main.shape[1], tasks, one.cost)

    def _look(self, one: _One) -> None:
        for task in self.tasks:
            if task.name not in one.found:
                one.found[task.name] = task.run(Embedded(self.data, one.vectors, self.settings))


def _taken(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take the fields of a dataclass out of options."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: options.pop(name) for name in names if name in options}


def _listed(bundles: Any) -> list[Any]:  # noqa: ANN401
    return [bundles] if isinstance(bundles, str | os.PathLike | Bundle) else list(bundles)


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
    """The tasks that a data set does for, and why it does not for the others of its kind.

    Raises:
        DataError: a task was named that it does not do for, or there is none that it does for.
    """
    found, skipped = [], {}
    for task in tasks:
        of_kind = task.kind in (None, data.kind)
        problem = task.problem(data, modalities) if of_kind else f"it is {data.kind} data"
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
