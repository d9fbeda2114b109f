"""The results of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fmrt.evaluation.measures import Difference, Measured
from fmrt.evaluation.model import Cost


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The measures of a task, and what else it found.

    Attributes:
        task: The task's name.
        measures: The measures with their intervals.
        details: Further results by name.
    """

    task: str
    measures: tuple[Measured, ...]
    details: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Against:
    """A model compared with another one on the same items.

    Attributes:
        model: What the other model says about itself.
        differences: This model's value less the other's, for each measure.
        neighbours_kept: The part of each item's ten nearest that both models have in common.
        rank_correlation: Spearman's correlation of the cosines of drawn pairs of items.
        verdict: A line for people about which differences can be told from zero.
    """

    model: Mapping[str, Any]
    differences: tuple[Difference, ...]
    neighbours_kept: Measured
    rank_correlation: Measured
    verdict: str


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """The results of one model, and its cost.

    Attributes:
        model: The bundle, its variant and hashes.
        dim: The number of dimensions of its vectors.
        tasks: The results of the tasks that were run.
        cost: The cost of embedding the data.
        against: The comparison with another model; None where none was asked for.
    """

    model: Mapping[str, Any]
    dim: int
    tasks: tuple[TaskResult, ...]
    cost: Cost
    against: Against | None = None

    def measure(self, task: str, name: str) -> Measured:
        """The value of one measure of a task.

        Raises:
            KeyError: There is no such measure.
        """
        for result in self.tasks:
            for found in result.measures:
                if (result.task, found.name) == (task, name):
                    return found
        raise KeyError((task, name))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of one model or several on a data set.

    Attributes:
        data: The data set's name, kind, sizes and SHA-256.
        settings: All settings that the results depend on.
        packages: The versions of the packages that it ran with.
        choices: Lines about what was decided for the data.
        notes: Lines about what is wrong with the data.
        skipped: The reason for each task, by name, that the data is not suitable for.
        models: One result per model.
    """

    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    packages: Mapping[str, str]
    choices: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: Mapping[str, str]
    models: tuple[ModelResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same evaluation in values that JSON has."""
        return dataclasses.asdict(self)
