"""Images with masks of their objects, and how well a model's masks from clicks overlap them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from fmrt.data import MEDIA, BadRecord, described, list_files
from fmrt.errors import DataError, InputError
from fmrt.evaluation.dataset import ITEMS, SEGMENTS, Dataset, Side
from fmrt.evaluation.reading import Reading
from fmrt.segmentation.prompt import OFF, ON, SegmentPrompt
from fmrt.segmenter import Segmenter
from fmrt.words import count, listed, shown

IMAGES, MASKS = "images", "masks"
# An image with more colours than this is a photograph, not a mask.
_MOST_OBJECTS = 1000
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


def is_segments(root: Path) -> bool:
    """Whether a folder holds images, and masks of them."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def load_segments(source: str, root: Path, reading: Reading) -> Dataset:
    """The images of ``images``, each with the file in ``masks`` of the same name.

    Args:
        source: The name of the data set.
        root: The folder of the data set.
        reading: The object that takes images without a mask that can be used.

    Raises:
        DataError: There is no image that can be used.
    """
    found, masks = list_files(root / IMAGES, MEDIA["image"]), root / MASKS
    of_name: dict[Path, list[Path]] = {}
    for path in list_files(masks, MEDIA["image"]).paths:
        of_name.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)
    items, used, named = [], [], set()
    for number, image in enumerate(found.paths, 1):
        name = image.relative_to(root / IMAGES).with_suffix("")
        named.add(name)
        problem = _problem(image, of_name.get(name, []))
        if problem is None:
            items.append(image)
            used += of_name[name]
        else:
            reading.bad(source, BadRecord(number, f"{str(image)!r}: {problem}"))
    alone = [str(path) for name, own in of_name.items() if name not in named for path in own]
    if not items:
        raise DataError(f"{shown(source)} has no image with a mask that can be used")
    side = Side(items, [str(p) for p in items], "image")
    passed = [f"{source}: passed over {line}" for line in described(found.passed_over)]
    choices = (f"{source}: a colour of a mask is an object, and black is none", *passed)
    notes = (f"{count(len(alone), 'mask')} without an image: {listed(alone)}",) if alone else ()
    sides = {ITEMS: side}
    return Dataset(source, SEGMENTS, sides, masks=tuple(used), choices=choices, notes=notes)


def objects_of(file: Path) -> list[Mask]:
    """The objects of a mask, each bool ``[height, width]``. Each colour except black is an object.

    Raises:
        InputError: The mask cannot be read, is all black, has over 8 bits per pixel, or has too
            many colours.
    """
    from PIL import Image  # an extra

    from fmrt.preprocess.image import decoded

    pixels = np.asarray(decoded(file)).astype(np.int64)
    with Image.open(file) as opened:
        if opened.mode.startswith(("I", "F")):
            raise InputError("it has more than 8 bits a pixel; write one of 8 bits or colours")
    colours = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    values = [value for value in np.unique(colours) if value]
    if not values:
        raise InputError("it is all black")
    if len(values) > _MOST_OBJECTS:
        raise InputError(f"it has {len(values):,} colours; one for each object is meant")
    return [colours == value for value in values]


def _problem(image: Path, masks: Sequence[Path]) -> str | None:
    """Why an image cannot be used with its masks, or None."""
    from fmrt.preprocess.image import decoded  # Pillow is an extra

    if not masks:
        return "it has no mask"
    if len(masks) > 1:
        return f"it has {len(masks)} masks: {listed([str(mask) for mask in masks])}"
    try:
        found = decoded(image)
    except InputError as e:
        return e.reason
    try:
        height, width = objects_of(masks[0])[0].shape
    except InputError as e:
        return f"its mask {str(masks[0])!r}: {e.reason}"
    if (found.width, found.height) != (width, height):
        own = f"{found.width} x {found.height}"
        return f"its mask is {width} x {height} pixels, and it is {own} itself"
    return None


def columns(clicks: Sequence[int]) -> list[str]:
    """The names of the measures of `overlaps`."""
    names = [f"IoU at {k} point{'s' * (k > 1)}" for k in clicks]
    return [*names, "best IoU of three at 1 point", "IoU by box"]


def overlaps(segmenter: Segmenter, data: Dataset, clicks: Sequence[int]) -> Values:
    """The intersection over union of each object with the mask that the model gives it.

    The first click is on the pixel of the object that is farthest from its border. Each further one
    is on the pixel that is deepest in the area that is wrong so far, on the object or off it.

    Args:
        segmenter: The segmenter of the model.
        data: The images with masks.
        clicks: The numbers of clicks after which the masks are measured.

    Returns:
        The overlaps, float64 ``[objects, measures]``, see `columns`.
    """
    rows = [
        _of_image(segmenter, image, objects_of(mask), clicks)
        for image, mask in zip(data.sides[ITEMS].items, data.masks, strict=True)
    ]
    return np.concatenate(rows)


def _of_image(
    segmenter: Segmenter, image: object, objects: Sequence[Mask], clicks: Sequence[int]
) -> Values:
    encoded = segmenter.encode(image)
    prompts = [SegmentPrompt([_deepest(truth)], [ON]) for truth in objects]
    by_clicks: list[list[float]] = []
    best: list[float] = []
    for number in range(1, max(clicks) + 1):
        found = segmenter.segment_prompts(encoded, prompts)
        masks = [one.mask() for one in found]
        by_clicks.append([iou(t, m) for t, m in zip(objects, masks, strict=True)])
        if number == 1:
            best = [max(iou(t, m) for m in f.masks()) for t, f in zip(objects, found, strict=True)]
        prompts = [_clicked(p, t, m) for p, t, m in zip(prompts, objects, masks, strict=True)]
    boxes = segmenter.segment_prompts(encoded, [SegmentPrompt(box=_box(t)) for t in objects])
    by_box = [iou(t, one.mask()) for t, one in zip(objects, boxes, strict=True)]
    return np.array([*(by_clicks[k - 1] for k in clicks), best, by_box]).T


def iou(one: Mask, other: Mask) -> float:
    """The intersection over union of two masks; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _clicked(prompt: SegmentPrompt, truth: Mask, mask: Mask) -> SegmentPrompt:
    """The prompt with one more click, in the middle of what is wrong; unchanged if nothing is."""
    missing, extra = truth & ~mask, mask & ~truth
    if not (missing.any() or extra.any()):
        return prompt
    on = _depth(missing).max() >= _depth(extra).max()
    point = _deepest(missing if on else extra)
    return SegmentPrompt([*prompt.points, point], [*(prompt.labels or ()), ON if on else OFF])


def _depth(mask: Mask) -> Values:
    """The distance of each pixel of a mask from the nearest one outside the mask, in pixels."""
    found: Values = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return found


def _deepest(mask: Mask) -> tuple[float, float]:
    row, column = np.unravel_index(int(_depth(mask).argmax()), mask.shape)
    return float(column), float(row)


def _box(mask: Mask) -> tuple[float, float, float, float]:
    """The corners of an object's box, which has a width and a height of 1 at least."""
    rows, columns_ = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = float(columns_[0]), float(rows[0])
    return left, top, max(float(columns_[-1]), left + 1), max(float(rows[-1]), top + 1)
