"""The settings of an evaluation: every number that a result depends on."""

from __future__ import annotations

from dataclasses import dataclass

from fmrt.errors import OptionError, quoted

FAIL, SKIP = "fail", "skip"
_MOST = 2**32 - 1
# The least and the most of each number. The time of a run grows with draws and resamples.
_BOUNDS = {
    "folds": (2, _MOST),
    "neighbours": (1, _MOST),
    "draws": (1, 1000),
    "depth": (1, _MOST),
    "seed": (0, _MOST),
    "resamples": (0, 100_000),
}


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
        for name, most in (("shots", _MOST), ("points", 100)):
            _check_several(self, name, most)
        for name, (low, high) in _BOUNDS.items():
            _check_whole(name, getattr(self, name), low, high)
        if not isinstance(self.template, str) or self.template.count("{}") != 1:
            raise OptionError(
                f"template={quoted(self.template)}; give a text with one {{}} for the class"
            )


def _check_several(settings: Settings, name: str, most: int) -> None:
    values = getattr(settings, name)
    if not isinstance(values, tuple | list) or not values:
        raise OptionError(f"{name}={quoted(values)}; give whole numbers, such as (1, 3, 5)")
    for value in values:
        _check_whole(name, value, 1, most)
    object.__setattr__(settings, name, tuple(dict.fromkeys(values)))


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or value < low:
        raise OptionError(f"{name}={quoted(value)}; give a whole number of at least {low}")
    if value > high:
        raise OptionError(f"{name}={quoted(value)}; give a whole number of at most {high:,}")
