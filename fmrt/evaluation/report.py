"""What an evaluation gives."""

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
        task: its name.
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
        model: the other one.
        differences: This model's value less the other's, for each measure.
        neighbours_kept: The part of each item's ten nearest that both models have in common.
        rank_correlation: Spearman's, of the cosines of drawn pairs of items.
        verdict: a line for people: which differences can be told from zero.
    """

    model: Mapping[str, Any]
    differences: tuple[Difference, ...]
    neighbours_kept: Measured
    rank_correlation: Measured
    verdict: str


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model reached, and what it took.

    Attributes:
        model: the bundle, its variant and hashes.
        dim: dimensions of its vectors.
        tasks: that were run.
        cost: The cost of embedding the data.
        against: the comparison with another model; None where none was asked for.
    """

    model: Mapping[str, Any]
    dim: int
    tasks: tuple[TaskResult, ...]
    cost: Cost
    against: Against | None = None

    def measure(self, task: str, name: str) -> Measured:
        """One figure.

        Raises:
            KeyError: there is no such.
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
        data: its name, kind, sizes and SHA-256.
        settings: all that results depend on.
        packages: versions that it ran with.
        choices: Lines about what was decided for the data.
        notes: Lines about what is wrong with the data.
        skipped: tasks that the data does not do for, by name, with the reason.
        models: a result each.
    """

    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    packages: Mapping[str, str]
    choices: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: Mapping[str, str]
    models: tuple[ModelResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same in values that JSON has."""
        return dataclasses.asdict(self)
