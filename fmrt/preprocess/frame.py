"""Where an image lies in a model's ``pixel_values``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.manifest import ImageInput

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Where an image lies in ``pixel_values``; every size is ``(height, width)``.

    Attributes:
        size: The size of the image.
        resized: The size of the image in ``pixel_values``, in the upper left corner.
        model: The size of ``pixel_values``.
        padded: Whether the rest of ``pixel_values`` is padding, however small.
    """

    size: Size
    resized: Size
    model: Size
    padded: bool

    @classmethod
    def of(cls, size: Size, spec: ImageInput) -> Frame:
        """Where an image of ``size`` lies."""
        model = (spec.height, spec.width)
        if spec.longest_edge is None:
            return cls(size, model, model, padded=False)
        return cls(size, fitted_size(size, spec.longest_edge), model, padded=True)

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Positions in the image as positions in ``pixel_values``, ``[..., 2]``, x before y."""
        height, width = (new / old for new, old in zip(self.resized, self.size, strict=True))
        scaled: NDArray[np.float32] = (points * np.array([width, height])).astype(np.float32)
        return scaled


def fitted_size(size: Size, longest: int) -> Size:
    """Two sides scaled until the longer is ``longest``, and rounded.

    As transformers' SamImageProcessor rounds, but never to a side without a pixel.
    """
    scale = longest * 1.0 / max(size)
    first, second = (max(1, int(side * scale + 0.5)) for side in size)
    return first, second
