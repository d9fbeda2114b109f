"""Segment Anything's processors: images as an `ImageInput`, and prompts in PyTorch."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import transformers
from PIL import Image
from torch import Tensor
from transformers.image_utils import load_image

from fmrt.bundle.manifest import ImageInput
from fmrt.errors import ExportError
from fmrt.export.quiet import quiet
from fmrt.export.vision.image_processor import COMBINED, CONFIG, ImageProcessor, affine
from fmrt.segmentation.prompt import SegmentPrompt


class SamProcessor(ImageProcessor):
    """A Hugging Face processor of images and prompts.

    Args:
        path: The model's directory.
        kind: The class of the processor in transformers.

    Raises:
        ExportError: It cannot be loaded, or does what the runtime does not know.
    """

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(path)
        self._path = path
        with quiet():
            self._prompts: Any = getattr(transformers, kind)(self.processor)
        self._translated(1)  # refuses what cannot be stated, before anything is run

    def size(self, data: bytes) -> tuple[int, int]:
        """Height and width of an image file, upright."""
        image = load_image(Image.open(io.BytesIO(data)))
        return image.height, image.width

    def prompt(self, data: bytes, prompt: SegmentPrompt) -> dict[str, Tensor]:
        """The model's inputs for one prompt on an image file, as Hugging Face prepares them."""
        image = load_image(Image.open(io.BytesIO(data)))
        given: dict[str, Any] = {"return_tensors": "pt"}
        if prompt.points:
            labels = [1] * len(prompt.points) if prompt.labels is None else list(prompt.labels)
            given["input_points"] = [[[list(point) for point in prompt.points]]]
            given["input_labels"] = [[labels]]
        if prompt.box is not None:
            given["input_boxes"] = [[list(prompt.box)]]
        if self._pads():
            given["images"] = image
        else:  # scaled by the size alone
            given["original_sizes"] = [[image.height, image.width]]
        with quiet():
            found = self._prompts(**given)
        names = ("input_points", "input_labels", "input_boxes")
        return {name: found[name] for name in names if name in found}

    def write(self, directory: Path) -> None:
        """Copy the processor's files, which other consumers of the model read."""
        for name in (CONFIG, COMBINED):
            if (self._path / name).is_file():
                shutil.copyfile(self._path / name, directory / name)

    def _pads(self) -> bool:
        return bool(getattr(self.processor, "do_pad", None))

    def _translated(self, tokens: int) -> ImageInput:
        if not self._pads():
            return super()._translated(tokens)
        p = self.processor
        size, padded = dict(p.size), dict(p.pad_size)
        longest, height, width = size.get("longest_edge"), padded["height"], padded["width"]
        if not p.do_resize or longest is None or longest > min(height, width):
            raise ExportError(
                f"image processor {self.kind} is not supported: it does not bring the longer edge "
                f"to at most {height} x {width} pixels"
            )
        scale, shift = affine(p)
        return ImageInput(
            height=height,
            width=width,
            tokens=tokens,
            resize=None,
            resample=int(p.resample),
            resize_float=False,
            crop=None,
            scale=scale,
            shift=shift,
            longest_edge=longest,
        )
