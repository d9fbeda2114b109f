"""Masks in a model's resolution -> masks of the image's own size, as Hugging Face makes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Floats
from fmrt.preprocess.frame import Frame, Size


def in_image(masks: Floats, frame: Frame) -> Floats:
    """Bring masks ``[n, h, w]`` to the size of the image; above 0 is the object.

    A padded model's masks grow to ``pixel_values``, lose the padding, and are resized to the
    image; others are resized at once. So do transformers' SamImageProcessor and
    Sam2ImageProcessor.
    """
    if frame.padded:
        height, width = frame.resized
        masks = resize_bilinear(masks, frame.model)[:, :height, :width]
    return resize_bilinear(masks, frame.size)


def resize_bilinear(images: Floats, size: Size) -> Floats:
    """Resize ``[n, height, width]`` to ``size``: torch's bilinear mode, without antialiasing.

    A pixel's centre counts, and what lies outside is the border (``align_corners=False``).
    """
    rows, columns = (_neighbours(*sides) for sides in zip(images.shape[1:], size, strict=True))
    left, right, weight = columns
    wide = _mixed(images[:, :, left], images[:, :, right], weight)
    top, bottom, weight = rows
    weight = weight[:, None]
    return _mixed(wide[:, top], wide[:, bottom], weight)


def _mixed(first: Floats, second: Floats, weight: Floats) -> Floats:
    """The weighted sum, in the order of torch's, which its rounding depends on."""
    return np.asarray(first * (1 - weight) + second * weight, np.float32)


def _neighbours(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The two old positions and the weight of the second, for each new position of an axis."""
    scale = np.float32(old) / np.float32(new)
    centres = np.arange(new, dtype=np.float32) + np.float32(0.5)
    source = np.maximum(scale * centres - np.float32(0.5), np.float32(0))
    first = source.astype(np.int64)
    second = np.minimum(first + 1, old - 1)
    return first, second, source - first.astype(np.float32)
