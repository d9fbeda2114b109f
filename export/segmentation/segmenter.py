"""Models that segment: an image tower, and a head from points and boxes to masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from fmrt.bundle.bundle import HeadReference, Reference
from fmrt.bundle.manifest import TaskHead, Tower, Variant
from fmrt.errors import OptionError
from fmrt.export.choices import Choice, Overrides, normalize_choice
from fmrt.export.loading.backbone import load_backbone
from fmrt.export.loading.checkpoint import check_missing
from fmrt.export.loading.directory import CONFIG_FILE, read_object
from fmrt.export.loading.fetching import Origin
from fmrt.export.part import HeadPart, Loaded, TowerPart
from fmrt.export.quiet import quiet
from fmrt.export.segmentation.sam import (
    FAMILIES,
    POOLED,
    PROMPTS,
    Family,
    SamDecoder,
    SamEncoder,
    argument,
)
from fmrt.export.segmentation.sam_processor import SamProcessor
from fmrt.export.vision.image_processor import reference_images
from fmrt.export.writing.configuration import write_config
from fmrt.segmentation.engine import TASK
from fmrt.segmentation.prompt import SegmentPrompt

STEMS = ("vision_encoder", "prompt_encoder_mask_decoder")
POOLING = "mean"
BATCH = 2
# The counts of an example; no axis that varies has size 1 or the size of another.
PROMPT_COUNT, POINT_COUNT = 3, 4
# Images whose features take seconds each: of the files that every image processor is compared on,
# turned by EXIF, upright, of one pixel, with transparency, and the largest.
IMAGES = (0, 1, 4, 7, 9)
# Those with reference prompts, by place among them: one upright, one lengthwise.
PROMPTED = (4, 1)


@dataclass(frozen=True)
class SegmentSource:
    """A loaded model with what prepares its images and prompts."""

    model: Any
    family: Family
    processor: SamProcessor
    unit: bool


def load_segmenter(origin: Origin, device: str, overrides: Overrides) -> Loaded:
    """Load a transformers model that segments by points and boxes.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    if overrides.max_length is not None:
        raise OptionError("--max-length is about texts, and this model embeds images")
    if overrides.pooling not in (None, POOLING):
        raise OptionError(f"pooling {overrides.pooling!r}; this model has only {POOLING!r}")
    family = FAMILIES[read_object(origin.path / CONFIG_FILE)["model_type"]]
    processor = SamProcessor(origin.path, family.processor)
    model, missing = load_backbone(origin.path, device, getattr(transformers, family.model))
    check_missing(missing, model, origin.name)
    source = SegmentSource(model, family, processor, bool(overrides.normalize))
    return Loaded(
        origin=origin,
        backbone=model,
        model_type=model.config.model_type,
        choices=_choices(source, overrides),
        parts=partial(_parts, source),
        write_configuration=partial(_write_configuration, source),
        heads=partial(_heads, source),
    )


def _choices(source: SegmentSource, overrides: Overrides) -> tuple[Choice, ...]:
    return (
        Choice("pooling", POOLING, f"of {source.family.pooled}; the model pools nothing itself"),
        normalize_choice(overrides.normalize),
        Choice("image processor", source.processor.kind, "preprocessor_config.json"),
        Choice("head", TASK, f"{source.family.model}: points and boxes to masks"),
    )


def _parts(source: SegmentSource) -> Sequence[TowerPart]:
    module = SamEncoder(source.model, source.family, source.unit).eval()
    images = reference_images()
    chosen = [images[i] for i in IMAGES]
    rows = [_pixels(source, data) for data in chosen]
    with torch.no_grad(), quiet():
        outputs = [module(row) for row in rows]
    vectors = np.stack([output[POOLED][0].cpu().numpy() for output in outputs])
    tokens = int(np.prod(outputs[0][source.family.pooled].shape[2:]))
    reference = Reference(list(chosen), [""] * len(chosen), np.full(len(chosen), tokens), vectors)
    tower = Tower(
        modality="image",
        inputs=("pixel_values",),
        outputs=(*source.family.features, POOLED),
        embedding_output=POOLED,
        pooling=POOLING,
        normalize=source.unit,
        input=source.processor.spec(tokens, images),
    )
    inputs = {"pixel_values": torch.cat(rows[:BATCH])}
    return [
        TowerPart(
            tower=tower,
            stem=STEMS[0],
            module=module,
            inputs=inputs,
            axes={"pixel_values": (0,)},
            reference=reference,
        )
    ]


def _heads(source: SegmentSource) -> Sequence[HeadPart]:
    family = source.family
    images = reference_images()
    head = TaskHead(TASK, "image", family.features, PROMPTS, family.outputs)
    with torch.no_grad(), quiet():
        encoded = [
            (place, images[IMAGES[place]], _features(source, images[IMAGES[place]]))
            for place in PROMPTED
        ]
        reference = _reference(source, encoded)
    named = {
        argument(name): value.repeat(BATCH, *[1] * (value.ndim - 1))
        for name, value in zip(family.features, encoded[0][2], strict=True)
    }
    axes = {**dict.fromkeys(named, (0,)), **dict.fromkeys(PROMPTS, (0, 1, 2))}
    inputs = {**_example(source.model.device), **named}
    module = SamDecoder(source.model, family).eval()
    return [
        HeadPart(
            head=head,
            stem=STEMS[1],
            module=module,
            inputs=inputs,
            axes=axes,
            reference=reference,
            finish=family.finish,
        )
    ]


def _features(source: SegmentSource, data: bytes) -> Sequence[Tensor]:
    return source.family.encode(source.model, _pixels(source, data))


def _example(device: torch.device) -> dict[str, Tensor]:
    shape = (BATCH, PROMPT_COUNT, POINT_COUNT)
    points = torch.arange(np.prod(shape) * 2, dtype=torch.float32).reshape(*shape, 2)
    labels = torch.ones(shape, dtype=torch.int64)
    return {name: value.to(device) for name, value in zip(PROMPTS, (points, labels), strict=True)}


def _pixels(source: SegmentSource, data: bytes) -> Tensor:
    return torch.from_numpy(source.processor(data))[None].to(source.model.device)


def reference_prompts(height: int, width: int) -> list[SegmentPrompt]:
    """A point, points on and off the object, a box, a box with points; all in the image.

    Args:
        height: The height of the image, in pixels.
        width: The width of the image, in pixels.
    """
    middle = (width / 2, height / 2)
    left, corner = (width * 0.21, height * 0.64), (0.0, 0.0)
    box = (width * 0.2, height * 0.15, width * 0.83, height * 0.7)
    return [
        SegmentPrompt([middle]),
        SegmentPrompt([corner], [0]),
        SegmentPrompt([middle, left, corner], [1, 1, 0]),
        SegmentPrompt(box=box),
        SegmentPrompt([middle, left], [1, 0], box),
    ]


def _reference(
    source: SegmentSource, encoded: Sequence[tuple[int, bytes, Sequence[Tensor]]]
) -> HeadReference:
    """The reference prompts with what the model in PyTorch gives, each alone.

    Args:
        source: The model.
        encoded: The images, by place among the reference images, with the features of each.
    """
    items: list[dict[str, Any]] = []
    results: list[Any] = []
    for place, data, features in encoded:
        for prompt in reference_prompts(*source.processor.size(data)):
            labels = None if prompt.labels is None else list(prompt.labels)
            items.append(
                {"image": place, "points": list(prompt.points), "labels": labels, "box": prompt.box}
            )
            given = source.processor.prompt(data, prompt)
            inputs = {name: value.to(source.model.device) for name, value in given.items()}
            results.append(source.model(**source.family.given(features), **inputs))
    outputs = {
        name: np.stack([result[name][0, 0].cpu().numpy() for result in results])
        for name in source.family.outputs
    }
    return HeadReference(items, outputs)


def _write_configuration(
    source: SegmentSource, directory: Path, variants: Sequence[Variant]
) -> None:
    write_config(source.model, directory, variants)
    source.processor.write(directory)
