"""What a task is."""

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

# The side of texts that stand for the classes, in zero-shot classification.
PROMPTS = "prompts"
# What a model can do beside embedding modalities.
SEGMENT = "segment"


@dataclass(frozen=True)
class Embedded:
    """A data set with a model's vectors.

    Attributes:
        data: the data set.
        vectors: float32 ``[n, dim]`` by side.
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
    """What a task gives: its measures, and what else is worth knowing."""

    measures: Sequence[Measure]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One way to test embeddings.

    Attributes:
        name: The name that ``--task`` takes.
        kind: The kind of data sets that it is for; None for all.
        about: Says to people what it measures.
        run: gives the measures.
        problem: why a data set does not do for it, given the modalities that the model embeds,
            and `SEGMENT` if it makes masks; None where it does.
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
