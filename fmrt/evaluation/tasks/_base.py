"""The definition of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.dataset import Dataset
from fmrt.evaluation.measures import Measure
from fmrt.evaluation.neighbours import Vectors
from fmrt.evaluation.settings import Settings

# The side with the texts that stand for the classes, in zero-shot classification.
PROMPTS = "prompts"
# An ability of a model, in addition to the modalities that it embeds.
SEGMENT = "segment"


@dataclass(frozen=True)
class Embedded:
    """A data set with a model's vectors.

    Attributes:
        data: The data set.
        vectors: The vectors by side, float32 ``[n, dim]``.
        settings: The evaluation's settings.
        overlaps: The overlaps of the model's masks with the data's objects, see
            `fmrt.evaluation.segments`; None where no task looks at them.
    """

    data: Dataset
    vectors: Mapping[str, Vectors]
    settings: Settings
    overlaps: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Found:
    """The results of a task: its measures, and further details."""

    measures: Sequence[Measure]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One way to test embeddings.

    Attributes:
        name: The name that ``--task`` takes.
        kind: The kind of data sets that it is for; None for all.
        about: The text that says to people what it measures.
        run: The function that gives the measures.
        problem: The function that says why a data set is not suitable for it; None where it is.
            It takes the data set, and the modalities that the model embeds, with `SEGMENT` if the
            model makes masks.
        prompts: Texts that are embedded in addition to the data's own sides.
        segments: Whether it looks at masks that the model makes.
    """

    name: str
    kind: str | None
    about: str
    run: Callable[[Embedded], Found]
    problem: Callable[[Dataset, Sequence[str]], str | None]
    prompts: Callable[[Dataset, Settings], list[str]] | None = None
    segments: bool = False
