"""How a data set is evaluated: every number that a result depends on."""

from __future__ import annotations

from dataclasses import dataclass

from fmrt.errors import OptionError, quoted

FAIL, SKIP = "fail", "skip"


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation; the same ones give the same digits on the same machine.

    Attributes:
        seed: The seed of folds, draws, k-means and resamples.
        folds: The folds of cross-validation, where the data states no split.
        neighbours: that vote in kNN.
        shots: examples of each class that few-shot probes learn from.
        draws: The draws of examples for each number of shots.
        resamples: draws for the intervals; 0 for none.
        depth: documents that retrieval ranks for a query.
        template: The form of the texts for zero-shot classification; ``{}`` stands for a class.
    """

    seed: int = 0
    folds: int = 5
    neighbours: int = 5
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 5
    resamples: int = 1000
    depth: int = 1000
    template: str = "a photo of a {}"

    def __post_init__(self) -> None:
        if isinstance(self.shots, list):
            object.__setattr__(self, "shots", tuple(self.shots))
        least = {"folds": 2, "neighbours": 1, "draws": 1, "depth": 1, "seed": 0, "resamples": 0}
        for name, low in least.items():
            _check_whole(name, getattr(self, name), low)
        if not isinstance(self.shots, tuple) or not self.shots:
            raise OptionError(f"shots={quoted(self.shots)}; give whole numbers, such as (1, 4, 16)")
        for shot in self.shots:
            _check_whole("shots", shot, 1)
        if not isinstance(self.template, str) or self.template.count("{}") != 1:
            raise OptionError(
                f"template={quoted(self.template)}; give a text with one {{}} for the class"
            )


def _check_whole(name: str, value: object, low: int) -> None:
    if type(value) is not int or not low <= value < 2**32:
        raise OptionError(f"{name}={quoted(value)}; give a whole number of at least {low}")
