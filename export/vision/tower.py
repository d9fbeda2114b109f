"""Image models: one tower, from a transformers vision backbone and its image processor."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers.image_utils import load_image
from transformers.utils import ModelOutput

from fmrt.bundle.bundle import Reference
from fmrt.bundle.manifest import Tower, Variant
from fmrt.errors import OptionError
from fmrt.export.choices import PATCH, Choice, Overrides, normalize_choice
from fmrt.export.loading.backbone import given_or_loaded
from fmrt.export.loading.checkpoint import check_missing
from fmrt.export.loading.fetching import Origin
from fmrt.export.part import Loaded, OtherTower, TowerModel, TowerPart, features
from fmrt.export.quiet import quiet
from fmrt.export.untouched import check_original, load_original
from fmrt.export.vision.image_processor import (
    ImageProcessor,
    load_processor,
    pixels_of,
    reference_images,
)
from fmrt.export.vision.patches import Patches, find_patches, needed
from fmrt.export.writing.configuration import write_config

OUTPUTS = ("last_hidden_state", "image_embeds")
BATCH = 2
POOLINGS = ("cls", "mean", "pooler")
PATCH_OUTPUT = "patch_embeds"
# Where the vector that a family's users take is not the model's pooled output: ViT's pooler is made
# for its classifier, and the others have none.
CLS_FAMILIES = ("deit", "vit", "vit_mae", "vit_msn")


def _mae(model: PreTrainedModel) -> dict[str, Tensor]:
    """Masked autoencoders see every patch, in order: nothing masked, noise that sorts as it is."""
    model.config.mask_ratio = 0.0
    patches = model.embeddings.patch_embeddings.num_patches
    return {"noise": torch.arange(patches, dtype=torch.float32)[None]}


# Extra inputs of families whose plain call is not what a feature extractor needs.
PREPARE: dict[str, Callable[[PreTrainedModel], dict[str, Tensor]]] = {"vit_mae": _mae}


def _pooler(output: ModelOutput) -> Tensor:
    projected: Tensor | None = output.get("image_embeds")
    return (output.pooler_output if projected is None else projected).flatten(1)


# The vectors that users take of a model's output. Patches, and their mean, are not among them: the
# output does not say which of the tokens are patches. There, the tokens are compared.
AS_USERS_POOL: dict[str, Callable[[ModelOutput], Tensor]] = {
    "pooler": _pooler,
    "cls": lambda output: output.last_hidden_state[:, 0],
}


class ImageEmbedding(torch.nn.Module):
    """``pixel_values`` to ``last_hidden_state`` and ``image_embeds``, or ``patch_embeds``.

    Args:
        backbone: A transformers vision model.
        pooling: One of `POOLINGS`, or `PATCH` for one vector per patch.
        unit: Whether to end in L2 normalization.
        extra: Further inputs, ``[1, ...]``, the same for every image.
        patches: How the patches lie in the backbone's output, if that is known.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        pooling: str,
        unit: bool,
        extra: dict[str, Tensor] | None = None,
        patches: Patches | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.unit = unit
        self.patches = patches
        self.config = backbone.config
        self.names = tuple(extra or {})
        for name, value in (extra or {}).items():
            self.register_buffer(f"extra_{name}", value, persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs; the embedding is the last."""
        # All tokens next to the patches would be the same tensor twice where nothing precedes them,
        # and the converter makes one output of two that are equal.
        return (PATCH_OUTPUT,) if self.pooling == PATCH else OUTPUTS

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            pixel_values: The images, float32 ``[batch, 3, height, width]``.
        """
        batch = pixel_values.shape[0]
        extra = {name: getattr(self, f"extra_{name}").expand(batch, -1) for name in self.names}
        return self.after(self.backbone(pixel_values=pixel_values, **extra))

    def after(self, output: ModelOutput) -> dict[str, Tensor]:
        """The outputs, of what the backbone gave."""
        hidden = _last(output)
        vectors = self.pooled(output)
        if self.patches is not None:
            hidden = self.patches.sequence(hidden)
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        outputs = {OUTPUTS[0]: hidden, self.outputs[-1]: vectors}
        return {name: outputs[name] for name in self.outputs}

    def pooled(self, output: ModelOutput) -> Tensor:
        """The vectors, not normalized, of the backbone's output."""
        hidden = _last(output)
        if self.pooling == "pooler":
            projected = output.get("image_embeds")
            return (output.pooler_output if projected is None else projected).flatten(1)
        if self.pooling == "cls":
            return hidden[:, 0]
        tokens = hidden if self.patches is None else self.patches.of(hidden)
        return tokens if self.pooling == PATCH else tokens.mean(1)


def _last(output: ModelOutput) -> Tensor:
    """The last hidden states; of a backbone, which has no others, the last feature map."""
    maps = output.get("feature_maps")
    last: Tensor = output.last_hidden_state if maps is None else maps[-1]
    return last


@dataclass(frozen=True)
class VisionSource:
    """A loaded vision model with its processor."""

    module: ImageEmbedding
    processor: ImageProcessor

    def write_configuration(self, directory: Path) -> None:
        """Write the image processor's file."""
        self.processor.processor.save_pretrained(str(directory))


def load_vision(
    origin: Origin, device: str, overrides: Overrides, given: torch.nn.Module | None = None
) -> Loaded:
    """Load a transformers vision model.

    Args:
        origin: The origin of the model, with its directory.
        device: The torch device.
        overrides: What the user asked for.
        given: What stands in for weights that are not in the directory.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for images.
    """
    if overrides.max_length is not None:
        raise OptionError("--max-length is about texts, and this model embeds images")
    processor = ImageProcessor(origin.path)
    trust = overrides.trust_remote_code
    backbone, missing = given_or_loaded(given, origin.path, device, trust=trust)
    model_type = backbone.config.model_type
    extra = PREPARE[model_type](backbone) if model_type in PREPARE else {}
    tried = _tried(backbone, processor, extra)
    chosen = _choose_pooling(backbone, tried.output, missing, overrides)
    pooling = chosen.value
    unused = [key for key in missing if _is_pooler(key) and pooling != "pooler"]
    check_missing(set(missing) - set(unused), backbone, origin.name)
    patches = tried.patches
    if pooling == PATCH:
        patches = needed(patches, model_type)
        chosen = _patch_choice(patches)
    module = ImageEmbedding(backbone, pooling, bool(overrides.normalize), extra, patches)
    module = module.eval().to(device)
    source = VisionSource(module, processor)
    if given is None:
        original = load_original(origin.path, device, trust)
        # What a masked autoencoder gives is drawn at random, unless it is said what to mask.
        more = PREPARE[model_type](original) if model_type in PREPARE else {}
        more = {name: value.to(device) for name, value in more.items()}
        as_users_pool = AS_USERS_POOL.get(pooling, module.pooled)
        _check(source, origin.path, partial(original, **more), as_users_pool)
    return Loaded(
        origin=origin,
        backbone=backbone,
        model_type=model_type,
        choices=(
            chosen,
            normalize_choice(overrides.normalize),
            Choice("image processor", processor.kind, processor.origin),
        ),
        parts=partial(_parts, source),
        write_configuration=partial(_write_configuration, source),
    )


def _check(
    source: VisionSource,
    path: Path,
    original: Callable[..., ModelOutput],
    pooled: Callable[[ModelOutput], Tensor],
) -> None:
    """Compare with what users get, if the class that prepares their images can be loaded here.

    Raises:
        ExportError: The vectors differ.
    """
    if not source.processor.has_class:
        return
    processor = load_processor(path)
    module, device = source.module, source.module.backbone.device

    def ours(data: bytes) -> Tensor:
        pixels = torch.from_numpy(source.processor(data))[None].to(device)
        vectors: Tensor = module(pixel_values=pixels)[module.outputs[-1]][0]
        return vectors

    def theirs(data: bytes) -> Tensor:
        pixels = pixels_of(processor, load_image(Image.open(io.BytesIO(data))))
        return pooled(original(pixel_values=pixels[None].to(device)))[0]

    check_original("image", reference_images(), ours, theirs, unit=module.unit)


@dataclass(frozen=True)
class _Trial:
    """What the backbone gives for one image."""

    output: ModelOutput
    patches: Patches | None


def _tried(
    backbone: PreTrainedModel, processor: ImageProcessor, extra: dict[str, Tensor]
) -> _Trial:
    pixels = torch.from_numpy(processor(reference_images()[0]))[None].to(backbone.device)
    with torch.no_grad(), quiet():
        output = backbone(
            pixel_values=pixels,
            **{name: value.to(backbone.device) for name, value in extra.items()},
        )
    height, width = pixels.shape[-2:]
    return _Trial(output, find_patches(backbone, _last(output), (height, width)))


def _is_pooler(key: str) -> bool:
    return "pooler" in key.split(".")


def _choose_pooling(
    backbone: PreTrainedModel,
    output: ModelOutput,
    missing: Sequence[str],
    overrides: Overrides,
) -> Choice:
    model_type, asked = backbone.config.model_type, overrides.pooling
    if overrides.output == PATCH:
        if asked is not None:
            raise OptionError("--pooling: with output 'patch' nothing is pooled")
        return Choice("pooling", PATCH, "asked for")
    untrained = any(map(_is_pooler, missing))
    if asked is not None:
        if asked not in POOLINGS:
            raise OptionError(f"pooling {asked!r}; for images choose from: {', '.join(POOLINGS)}")
        if asked == "pooler" and untrained:
            raise OptionError("pooling 'pooler': the checkpoint has no weights for it")
        return Choice("pooling", asked, "asked for")
    if model_type in CLS_FAMILIES or untrained:
        return Choice("pooling", "cls", f"standard for {model_type}; --pooling overrides")
    if output.get("image_embeds") is not None or output.get("pooler_output") is not None:
        return Choice("pooling", "pooler", f"{model_type}'s own pooled output; --pooling overrides")
    if hasattr(getattr(backbone, "embeddings", None), "cls_token"):
        return Choice("pooling", "cls", f"standard for {model_type}; --pooling overrides")
    return Choice("pooling", "mean", f"{model_type} has no other; --pooling overrides")


def _patch_choice(patches: Patches) -> Choice:
    rows, columns = patches.grid
    left = f", {patches.prefix} tokens before the patches left out" if patches.prefix else ""
    return Choice("output", f"{rows} x {columns} patches{left}", "asked for")


def _parts(source: VisionSource) -> Sequence[TowerPart]:
    return [image_part(source, "model")]


def image_part(source: VisionSource, stem: str) -> TowerPart:
    """The tower of a loaded vision model; ``stem`` names its graph's files."""
    images = reference_images()
    device = source.module.backbone.device
    rows = [torch.from_numpy(source.processor(data)) for data in images]
    with torch.no_grad(), quiet():
        outputs = [source.module(row[None].to(device)) for row in rows]
    module = source.module
    vectors = np.stack([o[module.outputs[-1]][0].cpu().numpy() for o in outputs])
    tokens = int(outputs[0][module.outputs[0]].shape[1])
    spec = source.processor.spec(tokens, images)
    reference = Reference(list(images), [""] * len(images), np.full(len(images), tokens), vectors)
    tower = Tower(
        modality="image",
        inputs=("pixel_values",),
        outputs=module.outputs,
        embedding_output=module.outputs[-1],
        pooling=module.pooling,
        normalize=module.unit,
        input=spec,
        grid=module.patches.grid if module.pooling == PATCH and module.patches else None,
    )
    inputs = {"pixel_values": torch.stack(rows[:BATCH]).to(device)}
    return TowerPart(
        tower=tower,
        stem=stem,
        module=module,
        inputs=inputs,
        axes={"pixel_values": (0,)},
        reference=reference,
    )


def other_tower(
    model: PreTrainedModel, path: Path, unit: bool, original: PreTrainedModel | None
) -> OtherTower:
    """The image tower of a model that has one of texts too.

    Args:
        model: The model.
        path: The directory of the model.
        unit: Whether to end in L2 normalization.
        original: The model as users load it; None where it has no weights to compare with.
    """
    backbone = TowerModel(model, "image", model.config.vision_config)
    source = VisionSource(ImageEmbedding(backbone, "pooler", unit).eval(), ImageProcessor(path))
    if original is not None:
        _check(source, path, features(original, "image"), AS_USERS_POOL["pooler"])
    return OtherTower(partial(image_part, source, "vision_model"), source.write_configuration)


def _write_configuration(
    source: VisionSource, directory: Path, variants: Sequence[Variant]
) -> None:
    write_config(source.module.backbone, directory, variants)
    source.write_configuration(directory)
