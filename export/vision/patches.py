"""Which of a vision model's positions are an image's patches, and how they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from fmrt.errors import OptionError

# Parameters that are tokens before the patches, by the last part of their names.
PREFIX = ("class_embedding", "cls_token", "dist_token", "distillation_token", "register_tokens")
MAP = 4  # axes of a feature map


@dataclass(frozen=True)
class Patches:
    """How an output's patches lie.

    Attributes:
        grid: The numbers of rows and columns.
        prefix: The number of tokens before the patches (CLS, registers).
        channels_last: Whether a feature map is ``[batch, rows, columns, channels]``.
    """

    grid: tuple[int, int]
    prefix: int = 0
    channels_last: bool = False

    def sequence(self, hidden: Tensor) -> Tensor:
        """All positions as ``[batch, positions, channels]``, those of patches at the end."""
        if hidden.ndim < MAP:
            return hidden
        return hidden.flatten(1, 2) if self.channels_last else hidden.flatten(2).transpose(1, 2)

    def of(self, hidden: Tensor) -> Tensor:
        """The patches row by row, ``[batch, rows * columns, channels]``."""
        return self.sequence(hidden)[:, self.prefix :]


def find_patches(
    backbone: PreTrainedModel, hidden: Tensor, size: tuple[int, int]
) -> Patches | None:
    """The layout of a vision model's output, or None when it is neither a map nor tokens.

    Args:
        backbone: A transformers vision model.
        hidden: Its ``last_hidden_state`` for one image.
        size: The height and width of ``pixel_values``.
    """
    timm = getattr(backbone, "timm_model", None)
    if hidden.ndim == MAP:
        if getattr(timm, "output_fmt", None) == "NHWC":
            return Patches((hidden.shape[1], hidden.shape[2]), channels_last=True)
        return Patches((hidden.shape[2], hidden.shape[3]))
    if hidden.ndim != MAP - 1:
        return None
    prefix = getattr(timm, "num_prefix_tokens", None)
    if prefix is None:
        prefix = _prefix(backbone, hidden.shape[-1])
    grid = _grid(hidden.shape[1] - prefix, size)
    return None if grid is None else Patches(grid, prefix)


def needed(patches: Patches | None, model_type: str) -> Patches:
    """The layout, for a user who asked for patches.

    Raises:
        OptionError: There is no layout of patches.
    """
    if patches is None:
        raise OptionError(
            f"output 'patch': which of a {model_type} model's positions are patches is not known"
        )
    return patches


def _prefix(backbone: PreTrainedModel, width: int) -> int:
    """Tokens that the model has as parameters of its own."""
    return sum(
        parameter.numel() // width
        for name, parameter in backbone.named_parameters()
        if name.rsplit(".", 1)[-1] in PREFIX
    )


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of ``count`` square patches that fill an image of ``size``."""
    if count < 1:
        return None
    height, width = size
    for stride in range(1, math.isqrt(height * width) + 1):
        rows, columns = height // stride, width // stride
        if rows * columns == count:
            return rows, columns
    return None
