"""Image files to ``pixel_values``, as Hugging Face's Pillow-based processors make them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmrt.errors import InputError
from fmrt.manifest import ImageInput
from fmrt.preprocess.base import Feeds
from fmrt.preprocess.frame import fitted_size

Pixels = NDArray[Any]

# Pillow's own limit warns at 89 megapixels and refuses at twice that; a file that expands further
# is a decompression bomb. Larger photographs exist and must be scaled down first.
MAX_PIXELS = 178_956_970
CHANNELS = 3


@dataclass(frozen=True)
class Images:
    """Images of one window, sized for the model and not yet normalized.

    Attributes:
        pixels: uint8, or float32 in [0, 255], each ``[height, width, 3]``.
        spec: of the manifest.
    """

    pixels: Sequence[Pixels]
    spec: ImageInput

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of each image, all the same, int64 ``[n]``."""
        return np.full(len(self.pixels), self.spec.tokens)

    untruncated = lengths

    @property
    def errors(self) -> Mapping[int, InputError]:
        """None: an image that could be decoded can be embedded."""
        return {}

    def feeds(self, rows: NDArray[np.int64]) -> Feeds:
        """``pixel_values``, float32 ``[rows, 3, height, width]``."""
        out = np.zeros((len(rows), CHANNELS, self.spec.height, self.spec.width), np.float32)
        for i, row in enumerate(rows):
            height, width = self.pixels[row].shape[:2]
            for channel in range(CHANNELS):
                scale, shift = self.spec.scale[channel], self.spec.shift[channel]
                plane = self.pixels[row][:, :, channel].astype(np.float32)
                filled = out[i, channel, :height, :width]
                np.multiply(plane, np.float32(scale), out=filled)
                filled += np.float32(shift)
        return {"pixel_values": out}

    def keys(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The pixels, with their type and shape, which may vary."""
        chosen = [self.pixels[row] for row in rows]
        return [f"{p.dtype.str}{p.shape}".encode() + p.tobytes() for p in chosen]


class ImagePreprocessor:
    """Decodes, resizes and crops with Pillow.

    Args:
        spec: of the manifest.
    """

    unit = "image"
    parallel = True
    padded = True  # all have one size
    dedupe = False
    window_weight = 48_000_000  # bytes of pixels
    stride = 1

    def __init__(self, spec: ImageInput) -> None:
        self._spec = spec
        self.limit = spec.tokens

    def load(self, item: object) -> Pixels:
        """Decode an image and bring it to the model's size.

        Args:
            item: a path, a file's bytes, a ``PIL.Image.Image``, or uint8 ``[height, width]`` or
                ``[height, width, 1, 3 or 4]``.

        Returns:
            uint8 ``[height, width, 3]`` (float32 where the model resizes floats).

        Raises:
            InputError: not an image, corrupt, truncated, or over `MAX_PIXELS`.
        """
        return self._cropped(self._resized(decoded(item)))

    def weight(self, loaded: Pixels) -> int:
        """Bytes of an image's pixels."""
        return loaded.nbytes

    def encode(self, loaded: Sequence[Pixels], prompt: str, on_too_long: str) -> Images:
        """Hold the images of a window; a prompt or a length has no meaning for them."""
        del prompt, on_too_long
        return Images(loaded, self._spec)

    def shown(self, length: int) -> str:
        """E.g. ``197 positions``; no image is ever cut."""
        return f"{length} positions"

    def constants(self, prompt: str) -> Feeds:
        """Nothing: images have no prompt."""
        del prompt
        return {}

    def _resized(self, image: Image.Image) -> Pixels:
        if self._spec.longest_edge is not None:
            size = fitted_size(image.size, self._spec.longest_edge)
        elif self._spec.resize is not None:
            size = _target_size(image.size, self._spec.resize)
        else:
            return np.asarray(image)
        resample = Image.Resampling(self._spec.resample)
        if not self._spec.resize_float:
            return np.asarray(image.resize(size, resample))
        bands = [band.convert("F").resize(size, resample) for band in image.split()]
        return np.stack([np.asarray(band) for band in bands], axis=-1)

    def _cropped(self, pixels: Pixels) -> Pixels:
        if self._spec.crop is not None:
            pixels = center_crop(pixels, self._spec.crop, half_even=self._spec.crop_half_even)
        wanted = (self._spec.height, self._spec.width)
        if self._spec.longest_edge is None and pixels.shape[:2] != wanted:
            found = " x ".join(map(str, pixels.shape[:2]))
            raise InputError(f"its size is {found}, and the model takes only {wanted}")
        return np.ascontiguousarray(pixels)


def decoded(item: object) -> Image.Image:
    """Upright RGB image of a raw item as `ImagePreprocessor.load` takes it, its first frame.

    Raises:
        InputError: not an image, corrupt, truncated, or over `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's complaints about metadata, and about half the limit that we set ourselves.
            warnings.simplefilter("ignore")
            image = _opened(item)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{image.width:,} x {image.height:,} pixels, over the limit of "
                    f"{MAX_PIXELS:,}; scale it down"
                )
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _rgb(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(_reason(item, e)) from e


def _opened(item: object) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, np.ndarray):
        return _from_array(item)
    if isinstance(item, str | Path):
        return _from_bytes(Path(item).read_bytes())
    if isinstance(item, bytes | bytearray | memoryview):
        return _from_bytes(bytes(item))
    raise InputError(f"expected a path, bytes, an image or an array, got {type(item).__name__}")


def _from_bytes(data: bytes) -> Image.Image:
    if not data:
        raise InputError("the file is empty")
    return Image.open(io.BytesIO(data))


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == CHANNELS else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(
            f"expected uint8 [height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    if 0 in pixels.shape:
        raise InputError("the image has no pixels")
    return Image.fromarray(pixels[:, :, 0] if channels == 1 and pixels.ndim > 2 else pixels)  # noqa: PLR2004


def _rgb(image: Image.Image) -> Image.Image:
    """RGB as Pillow converts it: alpha is dropped; 16 bits become the upper 8."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        # A 16-bit PNG opened by an older Pillow.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert(
            "RGB"
        )
    return image.convert("RGB")


def _reason(item: object, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
        return f"cannot read {str(item)!r}: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    return f"the image is corrupt: {' '.join(str(error).split()) or type(error).__name__}"


def _target_size(size: tuple[int, int], resize: Sequence[int]) -> tuple[int, int]:
    """Width and height after the resize; one number is for the shorter edge, rounded down."""
    if len(resize) > 1:
        return resize[1], resize[0]
    width, height = size
    short, long = min(size), max(size)
    other = int(resize[0] * long / short)
    return (resize[0], other) if width <= height else (other, resize[0])


def center_crop(pixels: Pixels, size: tuple[int, int], *, half_even: bool = False) -> Pixels:
    """Cut ``size`` (height, width) from the middle; zeros surround what is smaller.

    Args:
        pixels: ``[height, width, channels]``.
        size: height and width to keep.
        half_even: round half a pixel to even, as torchvision's center_crop, and not down, as
            transformers'.
    """
    height, width = pixels.shape[:2]
    crop_height, crop_width = size
    if height < crop_height or width < crop_width:
        outer = (max(height, crop_height), max(width, crop_width))
        padded = np.zeros((*outer, pixels.shape[2]), pixels.dtype)
        # The odd pixel goes above and to the left, as in transformers' center_crop.
        top, left = -(-(outer[0] - height) // 2), -(-(outer[1] - width) // 2)
        padded[top : top + height, left : left + width] = pixels
        pixels, (height, width) = padded, outer
    top, left = height - crop_height, width - crop_width
    top, left = (round(top / 2), round(left / 2)) if half_even else (top // 2, left // 2)
    return pixels[top : top + crop_height, left : left + crop_width]
