"""Image files to ``pixel_values``, as Hugging Face's Pillow-based processors make them."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import IcoImagePlugin, Image, ImageOps, UnidentifiedImageError

from fmrt.arrays import Feeds
from fmrt.bundle.manifest import ImageInput
from fmrt.errors import InputError, quoted
from fmrt.preprocess.frame import fitted_size
from fmrt.preprocess.item_file import open_regular
from fmrt.preprocess.tags import check_exif, check_file
from fmrt.system.limits import DEFAULT, Budget, Limits

Pixels = NDArray[Any]

# Pillow's own limit warns at 89 megapixels and refuses at twice that; a file that expands further
# is a decompression bomb. Larger photographs exist and must be scaled down first.
MAX_PIXELS = 178_956_970
# Pillow's pointer to a row, of an image and of its copy, which may be turned.
ROW_BYTES = 16
CHANNELS = 3
# Modes and formats of 16 bits that Pillow gives as integers of 32, in the same range.
DEEP = (("I", "PPM"),)
# Bytes of a pixel in Pillow's memory, by mode; all others take 4.
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# What decoders hold of a pixel besides that: nothing much, or a whole image in a form of their own.
STREAMED = frozenset({"BMP", "DIB", "GIF", "ICO", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF"})
DECODER_BYTES = {"AVIF": 12, "WEBP": 16, "JPEG2000": 32}
OTHER_BYTES = 16
# Coefficients of a progressive JPEG, of which there are two bytes each.
COEFFICIENT_BYTES = 2
# Hold other images, of sizes that they do not tell before all is decoded; or are programs.
REFUSED = frozenset({"BLP", "EPS", "FPX", "ICNS", "IPTC", "MIC", "WMF"})
# Pillow tells their size, and does not decode them.
UNREAD = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
# Bytes from which Pillow tells formats.
PREFIX = 16
ICO = b"\0\0\1\0"
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Images:
    """Images of one window, sized for the model and not yet normalized.

    Attributes:
        pixels: The pixels, uint8, or float32 in [0, 255], each ``[height, width, 3]``.
        spec: The manifest's numbers.
    """

    pixels: Sequence[Pixels]
    spec: ImageInput

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of each image, all the same, int64 ``[n]``."""
        return np.full(len(self.pixels), self.spec.tokens)

    cut = ()
    counted = True

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
        spec: The manifest's numbers.
        limits: The limits of the memory for images that are decoded at the same time.
    """

    unit = "image"
    parallel = True
    padded = True  # all have one size
    dedupe = False
    window_weight = 48_000_000  # bytes of pixels
    stride = 1

    def __init__(self, spec: ImageInput, limits: Limits = DEFAULT) -> None:
        self._spec = spec
        self._budget = Budget(limits)
        self.limit = spec.tokens

    def load(self, item: object) -> Pixels:
        """Decode an image and bring it to the model's size.

        Args:
            item: A path, a file's bytes, a ``PIL.Image.Image``, or uint8 ``[height, width]`` or
                ``[height, width, 1, 3 or 4]``.

        Returns:
            uint8 ``[height, width, 3]`` (float32 where the model resizes floats).

        Raises:
            InputError: The item is not an image, or is corrupt, truncated, or too large for memory.
        """
        with opened(item, self._budget) as image:
            return self._cropped(self._resized(image))

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


def decoded(item: object, budget: Budget | None = None) -> Image.Image:
    """Upright RGB image of a raw item as `ImagePreprocessor.load` takes it, its first frame.

    Raises:
        InputError: The item is not an image, or is corrupt, truncated, or too large for memory.
    """
    with opened(item, budget or Budget()) as image:
        return image


@contextmanager
def opened(item: object, budget: Budget) -> Iterator[Image.Image]:
    """The same, with its memory held of ``budget`` while it is used."""
    with ExitStack() as held:
        # Warnings about metadata are left to Python's filters, which all threads share.
        try:
            image, stored = _opened(item, budget.limits)
            held.enter_context(budget.taking(_checked_size(image, stored, budget.limits)))
            deep = image.mode.startswith("I;16") or (image.mode, image.format) in DEEP
            upright = _rgb(_upright(image, item), deep)
        except InputError:
            raise
        except Exception as e:  # whatever a corrupt file provokes in one of Pillow's decoders
            raise InputError(_reason(e)) from e
        yield upright


def is_image(path: Path) -> bool:
    """Whether a file begins as one of Pillow's formats does, and can be opened as that."""
    Image.init()
    try:
        with open_regular(path) as file:
            start = file.read(PREFIX)
        accepts = {name: accept for name, (_, accept) in Image.OPEN.items()}
        # Formats that nothing marks, such as TGA, are told by their extension alone.
        promised = Image.registered_extensions().get(path.suffix.lower(), "")
        unmarked = promised in accepts and accepts[promised] is None
        if not unmarked and not any(a is not None and a(start) is True for a in accepts.values()):
            return False
        return _from_path(path, DEFAULT)[0].format not in REFUSED | UNREAD
    except Exception:
        return False


def _checked_size(image: Image.Image, stored: int, limits: Limits) -> int:
    """Bytes that decoding takes, of a file of ``stored`` bytes.

    Raises:
        InputError: The image takes more memory than the limits allow, or has more pixels than
            `MAX_PIXELS`.
    """
    if image.format in REFUSED:
        raise InputError(f"{image.format} files are not read; convert it to PNG")
    shown = f"{image.width:,} x {image.height:,} pixels"
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{shown}, over the limit of {MAX_PIXELS:,}; scale it down")
    needed = image.width * image.height * _pixel_bytes(image) + ROW_BYTES * max(image.size)
    if stored:  # else the caller has it in memory already
        limits.check(shown, needed, stored)
    return needed


def _pixel_bytes(image: Image.Image) -> int:
    """Bytes of memory for a pixel while an image is decoded, turned upright and made RGB."""
    own = MODE_BYTES.get(image.mode, 4)
    # A PNG file may say only after its pixels that they are to be turned.
    upright = image.format != "PNG" and _orientation(image) == 1
    copy = 0 if image.mode == "RGB" and upright else 4
    if image.mode.startswith("I"):
        copy += 2 * own  # NumPy's arithmetic on 16 bits
    return own + copy + _decoder_bytes(image)


def _decoder_bytes(image: Image.Image) -> int:
    if image.format in ("JPEG", "MPO"):
        progressive = "progressive" in image.info
        return COEFFICIENT_BYTES * len(image.getbands()) if progressive else 0
    if image.format is None or image.format in STREAMED:
        return 0
    return DECODER_BYTES.get(image.format, OTHER_BYTES)


def _orientation(image: Image.Image) -> int:
    """As of EXIF; 1 is upright."""
    check_exif(image.info)
    found = image.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def _upright(image: Image.Image, item: object) -> Image.Image:
    """The image decoded and turned, in place unless it is the caller's own."""
    image.load()
    if _orientation(image) == 1:
        return image
    if image is item:
        return ImageOps.exif_transpose(image)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _opened(item: object, limits: Limits) -> tuple[Image.Image, int]:
    """An image that is not decoded yet, and the size of its file; 0 of what is no file."""
    if isinstance(item, Image.Image):
        return item, 0
    if isinstance(item, np.ndarray):
        return _from_array(item), 0
    if isinstance(item, str | Path):
        return _from_path(Path(item), limits)
    if isinstance(item, bytes | bytearray | memoryview):
        return _from_bytes(bytes(item))
    raise InputError(
        f"expected a path, bytes, an image or an array, got {type(item).__name__}: {quoted(item)}"
    )


def _from_path(path: Path, limits: Limits) -> tuple[Image.Image, int]:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.item_bytes:
            limits.check(f"a file of {size:,} bytes", size)
        return _from_bytes(file.read())


def _from_bytes(data: bytes) -> tuple[Image.Image, int]:
    if not data:
        raise InputError("the file is empty")
    check_file(data)
    if data.startswith(ICO):
        return _icon(data), len(data)
    return Image.open(io.BytesIO(data)), len(data)


def _icon(data: bytes) -> Image.Image:
    """The largest picture of an ICO file, not decoded.

    Image.open would decode it, whatever size it has besides the one that the directory states.
    """
    try:
        icons = IcoImagePlugin.IcoFile(io.BytesIO(data))
        return icons.getimage(icons.entry[0].dim)
    except (IndexError, TypeError, struct.error) as e:
        raise UnidentifiedImageError from e


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == CHANNELS else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(
            f"expected uint8 [height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    if 0 in pixels.shape:
        raise InputError("the image has no pixels")
    return Image.fromarray(pixels[:, :, 0] if channels == 1 and pixels.ndim > 2 else pixels)  # noqa: PLR2004


def _rgb(image: Image.Image, deep: bool) -> Image.Image:
    """RGB as Pillow converts it: alpha is dropped; 16 bits, if ``deep``, become the upper 8.

    Pillow clips 32-bit integers and floats to 0 ... 255, as transformers' processors do.
    """
    if deep:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "La":  # the one mode that takes two steps
        image = image.convert("LA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
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
        pixels: The pixels, ``[height, width, channels]``.
        size: The height and width to keep.
        half_even: Whether half a pixel is rounded to even, as in torchvision's center_crop, and not
            down, as in transformers'.
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
