"""timm's evaluation transforms as an `ImageInput`, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fmrt.bundle.manifest import ImageInput
from fmrt.errors import ExportError

KIND = "TimmWrapperImageProcessor"
FILE = "config.json"
# In this order; any other transform is refused by its name.
STEPS = (("Resize",), ("CenterCrop",), ("ToTensor", "MaybeToTensor"), ("Normalize",))
WHITE = 255.0


def is_timm(path: Path) -> bool:
    """Whether a directory's ``config.json`` is a timm model's, which holds its transforms too."""
    file = path / FILE
    return file.is_file() and "pretrained_cfg" in json.loads(file.read_text(encoding="utf-8"))


def timm_input(transforms: Sequence[Any], tokens: int) -> ImageInput:
    """The transforms in the runtime's terms.

    Args:
        transforms: The transforms of timm's evaluation pipeline.
        tokens: The number of positions that the model computes per image.

    Raises:
        ExportError: There is another transform, or one with an option that has no place.
    """
    names = [type(step).__name__ for step in transforms]
    expected = len(names) == len(STEPS)
    if not expected or any(n not in known for n, known in zip(names, STEPS, strict=True)):
        raise ExportError(f"image processor {KIND} is not supported with {', '.join(names)}")
    resize, crop, _, normalize = transforms
    if resize.max_size is not None:
        raise ExportError(f"image processor {KIND} is not supported: it has max_size")
    size = resize.size
    height, width = crop.size
    return ImageInput(
        height=int(height),
        width=int(width),
        tokens=tokens,
        resize=(int(size),) if isinstance(size, int) else tuple(map(int, size)),
        resample=int(Image.Resampling[resize.interpolation.value.upper()]),
        resize_float=False,
        crop=(int(height), int(width)),
        scale=tuple(1 / (WHITE * float(std)) for std in normalize.std),
        shift=tuple(
            -float(mean) / float(std)
            for mean, std in zip(normalize.mean, normalize.std, strict=True)
        ),
        crop_half_even=True,
    )
