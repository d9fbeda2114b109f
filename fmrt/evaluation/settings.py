"""The settings of an evaluation: every number that a result depends on."""

from __future__ import annotations

from dataclasses import dataclass

from fmrt.errors import OptionError, quoted

FAIL, SKIP = "fail", "skip"


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation. The same ones give the same digits on the same machine.

    Attributes:
        seed: The seed of folds, draws, k-means and resamples.
        folds: The number of folds of cross-validation, where the data states no split.
        neighbours: The number of neighbours that vote in kNN.
        shots: The numbers of examples of each class that few-shot probes learn from.
        draws: The number of draws of examples for each number of shots.
        resamples: The number of draws for the intervals; 0 for no intervals.
        points: The numbers of clicks on an object after which segmentation looks at its mask.
        depth: The number of documents that retrieval ranks for a query.
        template: The form of the texts for zero-shot classification; ``{}`` stands for a class.
    """

    seed: int = 0
    folds: int = 5
    neighbours: int = 5
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 5
    resamples: int = 1000
    points: tuple[int, ...] = (1, 3, 5)
    depth: int = 1000
    template: str = "a photo of a {}"

    def __post_init__(self) -> None:
        for name in ("shots", "points"):
            _check_several(self, name)
        least = {"folds": 2, "neighbours": 1, "draws": 1, "depth": 1, "seed": 0, "resamples": 0}
        for name, low in least.items():
            _check_whole(name, getattr(self, name), low)
        if not isinstance(self.template, str) or self.template.count("{}") != 1:
            raise OptionError(
                f"template={quoted(self.template)}; give a text with one {{}} for the class"
            )


def _check_several(settings: Settings, name: str) -> None:
    values = getattr(settings, name)
    if not isinstance(values, tuple | list) or not values:
        raise OptionError(f"{name}={quoted(values)}; give whole numbers, such as (1, 3, 5)")
    for value in values:
        _check_whole(name, value, 1)
    object.__setattr__(settings, name, tuple(values))


def _check_whole(name: str, value: object, low: int) -> None:
    if type(value) is not int or not low <= value < 2**32:
        raise OptionError(f"{name}={quoted(value)}; give a whole number of at least {low}")
