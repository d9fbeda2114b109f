"""What to segment in an image: points on or off an object, and a box around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import InputError

ON, OFF = 1, 0
# A box is its corners to the model: two points with labels of their own.
UPPER_LEFT, LOWER_RIGHT = 2, 3


@dataclass(frozen=True)
class SegmentPrompt:
    """One object of an image, in pixels of the image: x to the right, y down, from (0, 0).

    Attributes:
        points: The points, each as ``(x, y)``.
        labels: The label of each point, 1 on the object or 0 off it; default all 1.
        box: The box ``(x0, y0, x1, y1)`` around the object, the upper left corner first.
    """

    points: Sequence[tuple[float, float]] = ()
    labels: Sequence[int] | None = None
    box: tuple[float, float, float, float] | None = None

    def encoded(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Points ``[n, 2]`` in the image, box corners last, and their labels ``[n]``.

        Args:
            height: The height of the image.
            width: The width of the image.

        Raises:
            InputError: The prompt is empty, outside of the image, or malformed.
        """
        points, labels = _points(self.points, self.labels)
        _check_inside(points, height, width, "point")
        if self.box is not None:
            corners = _corners(self.box)
            _check_inside(corners, height, width, "box corner")
            points = np.concatenate([points, corners])
            labels = np.concatenate([labels, [UPPER_LEFT, LOWER_RIGHT]])
        if not len(points):
            raise InputError("no prompt: give a point or a box")
        return points, labels


# Its name before `prompt` meant the text before a text; scripts of that time have it.
Prompt = SegmentPrompt


def _points(
    points: Sequence[tuple[float, float]], labels: Sequence[int] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    positions = _numbers(points, "points") if len(points) else np.empty((0, 2))
    if positions.ndim != 2 or positions.shape[1] != 2:  # noqa: PLR2004
        raise InputError(f"points are (x, y) pairs; got {_shown(points)}")
    given = [ON] * len(positions) if labels is None else list(labels)
    if len(given) != len(positions):
        raise InputError(f"{len(positions)} points and {len(given)} labels; give one label a point")
    unknown = [label for label in given if label not in (ON, OFF)]
    if unknown:
        raise InputError(f"label {unknown[0]!r}; a point is on the object (1) or off it (0)")
    return positions, np.array(given, np.int64)


def _corners(box: Sequence[float]) -> NDArray[np.float64]:
    corners = _numbers(box, "box")
    if corners.shape != (4,):
        raise InputError(f"a box is (x0, y0, x1, y1); got {_shown(box)}")
    x0, y0, x1, y1 = corners
    if x0 >= x1 or y0 >= y1:
        raise InputError(
            f"box {_pair(corners[:2])},{_pair(corners[2:])} is empty: give its upper left corner "
            "first, then its lower right one"
        )
    return corners.reshape(2, 2)


def _numbers(values: object, what: str) -> NDArray[np.float64]:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: {_shown(values)} are not all numbers") from None
    if not np.isfinite(array).all():
        raise InputError(f"{what}: {_shown(values)} are not all finite")
    return array


def _check_inside(points: NDArray[np.float64], height: int, width: int, what: str) -> None:
    for point in points:
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):  # the border counts
            raise InputError(
                f"{what} {_pair(point)} is outside of the image, which is {width} x {height} pixels"
            )


def _pair(point: NDArray[np.float64]) -> str:
    return f"{point[0]:g},{point[1]:g}"


def _shown(values: object) -> str:
    text = repr(values)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
