"""Zero-shot classification: the class whose text is nearest to an image or a sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmrt.evaluation.classification import classification_measures
from fmrt.evaluation.dataset import ITEMS, LABELLED, Dataset
from fmrt.evaluation.measures import mean_of
from fmrt.evaluation.neighbours import nearest, unit
from fmrt.evaluation.settings import Settings
from fmrt.evaluation.tasks._base import PROMPTS, Embedded, Found, Task
from fmrt.evaluation.tasks._labels import labels_problem

_TOP = 5


def _run(embedded: Embedded) -> Found:
    true, k = embedded.data.targets, len(embedded.data.classes)
    texts, items = unit(embedded.vectors[PROMPTS]), unit(embedded.vectors[ITEMS])
    ranked, _ = nearest(items, texts, min(_TOP, k))
    measures = classification_measures(true, ranked[:, 0], k)
    if k > _TOP:
        hits = (ranked == true[:, None]).any(1).astype(np.float64)
        measures.append(mean_of(f"top-{_TOP} accuracy", hits))
    return Found(measures)


def _prompts(data: Dataset, settings: Settings) -> list[str]:
    return [settings.template.replace("{}", name) for name in data.classes]


def _problem(data: Dataset, modalities: Sequence[str]) -> str | None:
    if "text" not in modalities or data.sides[ITEMS].modality == "text":
        return "it needs images or sounds, and a model that embeds texts too"
    return labels_problem(data)


ZERO_SHOT = Task(
    name="zero-shot",
    kind=LABELLED,
    about="the class whose text is nearest, without learning",
    run=_run,
    problem=_problem,
    prompts=_prompts,
)
