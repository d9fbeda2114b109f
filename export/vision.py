"""Image models: one tower, from a transformers vision backbone and its image processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from export.backbone import load_backbone
from export.image_processor import ImageProcessor, reference_images
from export.layout import write_config
from export.part import Loaded, Part
from export.quiet import quiet
from export.source import Choice, Overrides, check_missing
from fmrt.bundle import Reference
from fmrt.errors import OptionError
from fmrt.manifest import Tower, Variant

OUTPUTS = ("last_hidden_state", "image_embeds")
BATCH = 2
POOLINGS = ("cls", "mean", "pooler")
# Where the vector that a family's users take is not the model's pooled output: ViT's pooler is made
# for its classifier, and the others have none.
CLS_FAMILIES = ("deit", "vit", "vit_mae", "vit_msn")


def _mae(model: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Masked autoencoders see every patch, in order: nothing masked, noise that sorts as it is."""
    model.config.mask_ratio = 0.0
    patches = model.embeddings.patch_embeddings.num_patches
    return {"noise": torch.arange(patches, dtype=torch.float32)[None]}


# Extra inputs of families whose plain call is not what a feature extractor needs.
PREPARE: dict[str, Callable[[Any], dict[str, Tensor]]] = {"vit_mae": _mae}


class ImageEmbedding(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """``pixel_values`` to ``last_hidden_state`` and ``image_embeds``.

    Args:
        backbone: a transformers vision model.
        pooling: one of `POOLINGS`.
        unit: whether to end in L2 normalization.
        extra: further inputs, ``[1, ...]``, the same for every image.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        pooling: str,
        unit: bool,
        extra: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.unit = unit
        self.config = backbone.config
        self.names = tuple(extra)
        for name, value in extra.items():
            self.register_buffer(f"extra_{name}", value, persistent=False)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            pixel_values: float32 ``[batch, 3, height, width]``.
        """
        batch = pixel_values.shape[0]
        extra = {name: getattr(self, f"extra_{name}").expand(batch, -1) for name in self.names}
        output = self.backbone(pixel_values=pixel_values, **extra)
        hidden = output.last_hidden_state
        vectors = self._pooled(output, hidden)
        if hidden.ndim > 3:  # noqa: PLR2004  # feature maps: [batch, channels, height, width]
            hidden = hidden.flatten(2).transpose(1, 2)
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {OUTPUTS[0]: hidden, OUTPUTS[1]: vectors}

    def _pooled(self, output: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
        if self.pooling == "pooler":
            projected = output.get("image_embeds")
            return (output.pooler_output if projected is None else projected).flatten(1)
        if hidden.ndim > 3:  # noqa: PLR2004
            return hidden.mean((2, 3))
        if self.pooling == "cls":
            return hidden[:, 0]
        patches = patch_count(self.config)
        return (hidden if patches is None else hidden[:, -patches:]).mean(1)


def patch_count(config: Any) -> int | None:  # noqa: ANN401
    """Patches of an image in a ViT-like model; tokens in front of them are CLS and registers."""
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(image, int) or not isinstance(patch, int):
        return None
    return int(image // patch) ** 2


@dataclass(frozen=True)
class VisionSource:
    """A loaded vision model with its processor."""

    module: ImageEmbedding
    processor: ImageProcessor

    def write_configuration(self, directory: Path) -> None:
        """Write the image processor's file."""
        self.processor.processor.save_pretrained(str(directory))


def load_vision(
    name: str, path: Path, revision: str | None, device: str, overrides: Overrides
) -> Loaded:
    """Load a transformers vision model.

    Raises:
        ExportError: it cannot be exported, with the reason.
        OptionError: an override that makes no sense for images.
    """
    if overrides.max_length is not None:
        raise OptionError("--max-length is about texts, and this model embeds images")
    processor = ImageProcessor(path)
    backbone, missing = load_backbone(path, device)
    pooling = _choose_pooling(backbone, missing, overrides.pooling)
    unused = [key for key in missing if "pooler" in key.split(".") and pooling.value != "pooler"]
    check_missing(set(missing) - set(unused), backbone, name)
    unit = bool(overrides.normalize)
    origin = (
        "the model does not say; --normalize adds it"
        if overrides.normalize is None
        else "asked for"
    )
    model_type = backbone.config.model_type
    extra = PREPARE[model_type](backbone) if model_type in PREPARE else {}
    module = ImageEmbedding(backbone, pooling.value, unit, extra).eval().to(device)
    source = VisionSource(module, processor)
    return Loaded(
        name,
        path,
        revision,
        backbone,
        model_type,
        (),
        (
            pooling,
            Choice("normalize", "yes" if unit else "no", origin),
            Choice("image processor", processor.kind, "preprocessor_config.json"),
        ),
        partial(_parts, source),
        partial(_write_configuration, source),
        (),
    )


def _choose_pooling(backbone: Any, missing: Sequence[str], asked: str | None) -> Choice:  # noqa: ANN401
    model_type = backbone.config.model_type
    untrained = any("pooler" in key.split(".") for key in missing)
    if asked is not None:
        if asked not in POOLINGS:
            raise OptionError(f"pooling {asked!r}; for images choose from: {', '.join(POOLINGS)}")
        if asked == "pooler" and untrained:
            raise OptionError("pooling 'pooler': the checkpoint has no weights for it")
        return Choice("pooling", asked, "asked for")
    if model_type in CLS_FAMILIES or untrained:
        return Choice("pooling", "cls", f"standard for {model_type}; --pooling overrides")
    with torch.no_grad():
        size = getattr(backbone.config, "image_size", None)
        side = size if isinstance(size, int) else 224
        channels = getattr(backbone.config, "num_channels", 3)
        output = backbone(pixel_values=torch.zeros(1, channels, side, side, device=backbone.device))
    if output.get("image_embeds") is not None or output.get("pooler_output") is not None:
        return Choice("pooling", "pooler", f"{model_type}'s own pooled output; --pooling overrides")
    if hasattr(getattr(backbone, "embeddings", None), "cls_token"):
        return Choice("pooling", "cls", f"standard for {model_type}; --pooling overrides")
    return Choice("pooling", "mean", f"{model_type} has no other; --pooling overrides")


def _parts(source: VisionSource) -> Sequence[Part]:
    return [image_part(source, "model")]


def image_part(source: VisionSource, stem: str) -> Part:
    """The tower of a loaded vision model; ``stem`` names its graph's files."""
    images = reference_images()
    device = source.module.backbone.device
    rows = [torch.from_numpy(source.processor(data)) for data in images]
    with torch.no_grad(), quiet():
        outputs = [source.module(row[None].to(device)) for row in rows]
    vectors = np.stack([o[OUTPUTS[1]][0].cpu().numpy() for o in outputs])
    tokens = int(outputs[0][OUTPUTS[0]].shape[1])
    spec = source.processor.spec(tokens, images)
    reference = Reference(list(images), [""] * len(images), np.full(len(images), tokens), vectors)
    tower = Tower(
        modality="image",
        inputs=("pixel_values",),
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling=source.module.pooling,
        normalize=source.module.unit,
        input=spec,
    )
    inputs = {"pixel_values": torch.stack(rows[:BATCH]).to(device)}
    return Part(tower, stem, source.module, inputs, {"pixel_values": (0,)}, reference)


def _write_configuration(
    source: VisionSource, directory: Path, variants: Sequence[Variant]
) -> None:
    write_config(source.module.backbone, directory, variants)
    source.write_configuration(directory)
