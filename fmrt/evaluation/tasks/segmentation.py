"""Segmentation: how well the masks that a model makes of clicks overlap the objects."""

from __future__ import annotations

from collections.abc import Sequence

from fmrt.evaluation.dataset import SEGMENTS, Dataset
from fmrt.evaluation.measures import mean_of
from fmrt.evaluation.segments import columns
from fmrt.evaluation.tasks._base import SEGMENT, Embedded, Found, Task


def _run(embedded: Embedded) -> Found:
    found = embedded.overlaps
    assert found is not None  # noqa: S101  # the task's problem says so
    names = columns(embedded.settings.points)
    return Found([mean_of(name, found[:, i]) for i, name in enumerate(names)])


def _problem(_: Dataset, abilities: Sequence[str]) -> str | None:
    return None if SEGMENT in abilities else "the model makes no masks; a Segment Anything one does"


SEGMENTATION = Task(
    name="segmentation",
    kind=SEGMENTS,
    about="overlap of masks from clicks and boxes with the objects",
    run=_run,
    problem=_problem,
    segments=True,
)
