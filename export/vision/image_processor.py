"""A Hugging Face image processor as an `ImageInput`, or a refusal."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor, BaseImageProcessor
from transformers.image_utils import load_image

from fmrt.bundle.manifest import ImageInput
from fmrt.errors import ExportError
from fmrt.export.loading.directory import read_object
from fmrt.export.loading.pretrained import load_pretrained
from fmrt.export.quiet import quiet
from fmrt.export.vision.timm_transforms import FILE, is_timm, timm_input
from fmrt.preprocess.image import ImagePreprocessor

try:
    from transformers import ViTImageProcessorPil
except ImportError:  # transformers 4
    from transformers import ViTImageProcessor as ViTImageProcessorPil

    PILLOW: dict[str, Any] = {"use_fast": False}
    # It guesses where the channels are, and takes an image of one pixel for one of one channel.
    CHANNELS: dict[str, Any] = {"input_data_format": "channels_last"}
else:
    PILLOW, CHANNELS = {"backend": "pil"}, {}

CONFIG = "preprocessor_config.json"
# The file of an image processor together with what else prepares a model's inputs.
COMBINED = "processor_config.json"
# The tolerance of a normalized pixel. Float32 rounding in another order gives 1e-6.
TOLERANCE = 1e-4
# Their only implementation needs torchvision, and resizes pixels that are floats already.
FLOAT_RESIZE = ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast")
# Theirs needs torchvision too, but resizes bytes: Pillow's own bytes are within one level of them.
BYTE_RESIZE = ("Sam2ImageProcessor", "Sam2ImageProcessorFast")
INTERPOLATION = {2: "bilinear", 3: "bicubic"}
# ConvNext's processor resizes to shortest_edge / crop_pct and crops, but warps from here on.
WARP_FROM = 384
# EXIF's word for an image that lies on its side.
ROTATED = 6
# Processing that has no place in `ImageInput`; each is refused by name.
UNKNOWN = (
    "do_pad",
    "do_thumbnail",
    "do_align_long_axis",
    "do_crop_margin",
    "do_flip_channel_order",
    "do_split_image",
    "do_image_splitting",
    "do_pan_and_scan",
    "do_random_crop",
)

Pixels = NDArray[np.float32]


class ImageProcessor:
    """Pixel values as Hugging Face computes them, and the same as an `ImageInput`.

    Args:
        path: The model's directory.

    Raises:
        ExportError: The processor cannot be loaded, or does what the runtime does not know.

    Attributes:
        processor: The processor of transformers.
        has_class: Whether it is of the class that the directory names.
        kind: The class that the directory names.
        origin: The file that names it.
    """

    def __init__(self, path: Path) -> None:
        self._timm = is_timm(path)
        files = [name for name in (CONFIG, COMBINED) if (path / name).is_file()]
        if not files and not self._timm:
            raise ExportError(f"{path} has no {CONFIG}: nothing says how images are prepared")
        stated = _stated_kind(path)
        self._float = stated in FLOAT_RESIZE
        self.has_class = stated not in (*FLOAT_RESIZE, *BYTE_RESIZE)
        self.processor = load_processor(path, plain=not self.has_class)
        self.kind = stated or type(self.processor).__name__
        self.origin = FILE if self._timm else files[0]

    def __call__(self, data: bytes) -> Pixels:
        """``pixel_values`` of an image file, float32 ``[3, height, width]``."""
        image = load_image(Image.open(io.BytesIO(data)))
        if self._float:
            return _float_pixels(np.asarray(image), self.processor)
        pixels: Pixels = pixels_of(self.processor, image).numpy()
        return pixels

    def spec(self, tokens: int, images: Sequence[bytes]) -> ImageInput:
        """The processor in the runtime's terms, compared with the processor on ``images``.

        Args:
            tokens: The number of positions that the model computes per image.
            images: Image files of many sizes and modes.

        Raises:
            ExportError: The processor cannot be put in these terms, or the pixels differ.
        """
        spec = self._translated(tokens)
        ours = ImagePreprocessor(spec)
        for data in images:
            got = ours.encode([ours.load(data)], "", "error").feeds(np.array([0]))["pixel_values"]
            error = np.abs(got[0] - self(data)).max()
            if error > TOLERANCE:
                raise ExportError(
                    f"image processor {self.kind} is not supported: its pixels differ from the "
                    f"runtime's by {error:.1e}"
                )
        return spec

    def _translated(self, tokens: int) -> ImageInput:
        p = self.processor
        if self._timm:
            return timm_input(p.val_transforms.transforms, tokens)
        for name in UNKNOWN:
            if getattr(p, name, None):
                raise ExportError(f"image processor {self.kind} is not supported: it has {name}")
        resize, crop = _sizes(p, self.kind)
        final = crop or (resize if resize is not None and len(resize) > 1 else None)
        if final is None:
            raise ExportError(
                f"image processor {self.kind} is not supported: its images differ in size"
            )
        scale, shift = affine(p)
        return ImageInput(
            height=final[0],
            width=final[1],
            tokens=tokens,
            resize=resize,
            resample=int(p.resample) if p.resample is not None else Image.Resampling.BILINEAR,
            resize_float=self._float,
            crop=crop,
            scale=scale,
            shift=shift,
        )


def affine(p: BaseImageProcessor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What a processor multiplies each channel by, and then adds: rescaling and normalization."""
    factor = p.rescale_factor if p.do_rescale else 1.0
    mean = p.image_mean if p.do_normalize else (0.0, 0.0, 0.0)
    std = p.image_std if p.do_normalize else (1.0, 1.0, 1.0)
    scale = tuple(float(factor / s) for s in std)
    return scale, tuple(float(-m / s) for m, s in zip(mean, std, strict=True))


def _sizes(
    p: BaseImageProcessor, kind: str
) -> tuple[tuple[int, ...] | None, tuple[int, int] | None]:
    """Size to resize to, one number for the shorter edge, and the size cut from the middle."""
    crop = (p.crop_size["height"], p.crop_size["width"]) if p.do_center_crop else None
    if not p.do_resize:
        return None, crop
    size = {name: value for name, value in dict(p.size).items() if value is not None}
    if set(size) == {"height", "width"}:
        return (size["height"], size["width"]), crop
    if set(size) != {"shortest_edge"}:
        raise ExportError(
            f"image processor {kind} is not supported: it resizes to {json.dumps(size)}"
        )
    edge = size["shortest_edge"]
    part = getattr(p, "crop_pct", None)
    if part is None:
        return (edge,), crop
    if edge >= WARP_FROM:
        return (edge, edge), crop
    return (int(edge / part),), (edge, edge)


def _stated_kind(path: Path) -> str | None:
    stated: dict[str, Any] = {}
    if (path / CONFIG).is_file():
        stated = read_object(path / CONFIG)
    elif (path / COMBINED).is_file():
        stated = read_object(path / COMBINED).get("image_processor", {})
    kind = stated.get("image_processor_type") or stated.get("feature_extractor_type")
    return None if kind is None else str(kind)


def load_processor(path: Path, *, plain: bool = False) -> BaseImageProcessor:
    """The image processor of a directory, with Pillow.

    Args:
        path: The directory.
        plain: Whether it has the same attributes in a class without torchvision.
    """
    what = f"the image processor of {path}"
    if plain:
        return load_pretrained(ViTImageProcessorPil.from_pretrained, path, what)
    return load_pretrained(AutoImageProcessor.from_pretrained, path, what, **PILLOW)


def pixels_of(processor: BaseImageProcessor, image: Image.Image) -> torch.Tensor:
    """What a processor makes of an image in RGB, ``[3, height, width]``."""
    options = {} if type(processor).__name__.startswith("Timm") else CHANNELS
    with quiet():
        # timm's gives tensors alone.
        batch = processor(images=image, return_tensors="pt", **options)
    pixels: torch.Tensor = batch["pixel_values"][0]
    return pixels


def _float_pixels(image: NDArray[np.uint8], p: BaseImageProcessor) -> Pixels:
    """Rescale, resize with antialiasing, normalize: DINOv3's order, with torch's operators."""
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float() * p.rescale_factor
    size = (p.size["height"], p.size["width"])
    mode = INTERPOLATION[int(p.resample)]
    pixels = interpolate(pixels, size, mode=mode, antialias=True, align_corners=False)[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (p.image_mean, p.image_std))
    result: Pixels = ((pixels - mean) / std).numpy()
    return result


def reference_images() -> list[bytes]:
    """Small image files of many sizes, shapes and modes, drawn from a seed.

    Landscape, portrait and square, below and above the usual sizes, one pixel, grayscale, with
    palette, alpha and EXIF orientation; as PNG, JPEG and GIF.
    """
    rng = np.random.default_rng(0)

    def drawn(height: int, width: int) -> Image.Image:
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / (3 + i) + y / (5 + 2 * i)) * 90 + 128 for i in range(3)]
        noise = rng.integers(-30, 30, (height, width, 3))
        return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = ROTATED
    png = partial(_file, kind="PNG")
    return [
        _file(drawn(48, 64), "JPEG", exif=exif),
        _file(drawn(90, 57), "JPEG"),
        png(drawn(33, 33)),
        png(drawn(7, 41)),
        png(drawn(1, 1)),
        png(drawn(40, 50).convert("L")),
        png(drawn(50, 40).convert("P")),
        png(drawn(31, 64).convert("RGBA")),
        _file(drawn(30, 45), "GIF"),
        _file(drawn(300, 420), "JPEG"),
    ]


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
