"""A picture of quality against speed, size and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmrt.evaluation.model import Cost
from fmrt.evaluation.report import Evaluation, TaskResult

_MEGABYTE = 1e6
# For each cost, the label of the axis, and a function of its value; None where it is not known.
_COSTS: tuple[tuple[str, Callable[[Cost], float | None]], ...] = (
    ("items/s", lambda cost: cost.items_per_second),
    ("file, MB", lambda cost: cost.file_bytes and cost.file_bytes / _MEGABYTE),
    ("memory, MB", lambda cost: cost.memory_bytes and cost.memory_bytes / _MEGABYTE),
)


def draw(found: Evaluation, file: Path) -> None:
    """Draw the first measure of each task against each cost: one column per task, one row per cost.

    Args:
        found: The evaluation.
        file: The picture's file, ``.png`` or ``.svg``.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = found.models[0].tasks
    size = (4 * len(tasks), 3.5 * len(_COSTS))
    figure, axes = plt.subplots(
        len(_COSTS), len(tasks), figsize=size, layout="constrained", squeeze=False
    )
    for (label, value_of), row in zip(_COSTS, axes, strict=True):
        for i, (task, axis) in enumerate(zip(tasks, row, strict=True)):
            for model in found.models:
                _mark(axis, str(model.model["name"]), model.tasks[i], value_of(model.cost))
            axis.set_title(f"{task.task}: {task.measures[0].name}")
            axis.set_xlabel(label)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _mark(axis: Any, name: str, task: TaskResult, cost: float | None) -> None:  # noqa: ANN401
    """Draw one model with its interval, if its measure and its cost are known."""
    measure = task.measures[0]
    if measure.value is None or cost is None:
        return
    low = measure.value if measure.low is None else measure.low
    high = measure.value if measure.high is None else measure.high
    axis.vlines(cost, low, high, color="#999999")
    axis.scatter([cost], [measure.value], alpha=0.7)
    axis.annotate(name, (cost, measure.value), fontsize=8)
