"""Segment Anything models as two torch modules: images to features, and prompts to masks.

A prompt is a list of points. A box is two of them, its corners, labelled 2 and 3, as in the model's
own embedding of a box; so points and boxes are one input of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from fmrt.export.segmentation.prompt_padding import pad_prompts

POOLED = "image_embeds"
PROMPTS = ("input_points", "input_labels")
# A box's upper left and lower right corner.
CORNERS = (2, 3)


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        model: Its class in transformers.
        processor: The class in transformers that prepares the model's prompts.
        features: The names of what the decoder reads of an image; the first of `pooled` is pooled.
        outputs: The names of what the decoder gives, masks and scores first.
        pooled: The feature, ``[batch, channels, height, width]``, whose mean is an embedding.
        encode: A function from the model and ``pixel_values`` to the features.
        decode: A function from the model, features, points and labels to the outputs.
        given: A function that gives features as arguments of the model's own forward, instead of
            ``pixel_values``.
        pads: Whether the model itself pads prompts, with a box or without.
    """

    model: str
    processor: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    pooled: str
    encode: Callable[[Any, Tensor], Sequence[Tensor]]
    decode: Callable[[Any, Sequence[Tensor], Tensor, Tensor], Sequence[Tensor]]
    given: Callable[[Sequence[Tensor]], dict[str, Any]]
    pads: bool = False

    def finish(self, graph: ir.Model) -> None:
        """Do what is left to do on the decoder's graph, in place."""
        names = {argument(name): name for name in self.features}
        for value in graph.graph.inputs:
            value.name = names.get(str(value.name), value.name)
        if not self.pads:
            pad_prompts(graph)


class SamEncoder(torch.nn.Module):
    """``pixel_values`` to the features of an image and, as their mean, its embedding.

    Args:
        model: A transformers model.
        family: The kind of the model.
        unit: Whether the embedding ends in L2 normalization.
    """

    def __init__(self, model: torch.nn.Module, family: Family, unit: bool) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.unit = unit
        self.config = model.config

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Encode a batch.

        Args:
            pixel_values: The images, float32 ``[batch, 3, height, width]``.
        """
        features = dict(
            zip(self.family.features, self.family.encode(self.model, pixel_values), strict=True)
        )
        vectors = features[self.family.pooled].mean((2, 3))
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {**features, POOLED: vectors}


class SamDecoder(torch.nn.Module):
    """Features of images, and prompts, to masks and scores."""

    def __init__(self, model: torch.nn.Module, family: Family) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.config = model.config

    def forward(
        self, input_points: Tensor, input_labels: Tensor, **features: Tensor
    ) -> dict[str, Tensor]:
        """Decode a batch of images, each with as many prompts.

        Args:
            input_points: The points, float32 ``[batch, prompts, points, 2]``, x and y in
                ``pixel_values``.
            input_labels: The labels, int64 ``[batch, prompts, points]``: 1 on the object, 0 off it,
                2 and 3 a box's corners, -1 no point.
            features: The features of `SamEncoder`, by `argument`.
        """
        read = [features[argument(name)] for name in self.family.features]
        results = self.family.decode(self.model, read, input_points, input_labels)
        return dict(zip(self.family.outputs, results, strict=True))


def argument(feature: str) -> str:
    """A feature's name as Python can have it."""
    return feature.replace(".", "_")


def _encode_sam(model: PreTrainedModel, pixel_values: Tensor) -> Sequence[Tensor]:
    embeddings = model.vision_encoder(pixel_values).last_hidden_state
    return embeddings, _positions(model, pixel_values.shape[0])


def _encode_hq(model: PreTrainedModel, pixel_values: Tensor) -> Sequence[Tensor]:
    output = model.vision_encoder(pixel_values)
    positions = _positions(model, pixel_values.shape[0])
    return output.last_hidden_state, positions, output.intermediate_embeddings[0]


def _encode_sam2(model: PreTrainedModel, pixel_values: Tensor) -> Sequence[Tensor]:
    features: Sequence[Tensor] = model.get_image_embeddings(pixel_values)
    return features


def _positions(model: PreTrainedModel, batch: int) -> Tensor:
    return model.get_image_wide_positional_embeddings().repeat(batch, 1, 1, 1)


def _decode_sam(
    model: PreTrainedModel,
    features: Sequence[Tensor],
    points: Tensor,
    labels: Tensor,
) -> Sequence[Tensor]:
    sparse, dense = _prompt(model.prompt_encoder, points, labels)
    masks, scores = model.mask_decoder(features[0], features[1], sparse, dense, True)
    return masks, scores


def _decode_hq(
    model: PreTrainedModel,
    features: Sequence[Tensor],
    points: Tensor,
    labels: Tensor,
) -> Sequence[Tensor]:
    embeddings, positions, intermediate = features
    sparse, dense = _prompt(model.prompt_encoder, points, labels)
    masks, scores = model.mask_decoder(
        embeddings, positions, sparse, dense, True, False, [intermediate]
    )
    return masks, scores


def _prompt(encoder: PreTrainedModel, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sparse and dense embeddings as the prompt encoder's own of points and boxes, not padded."""
    sparse = encoder._embed_points(points, labels, pad=False)  # boxes pad not
    for label in CORNERS:
        corner = sparse + encoder.point_embed[label].weight
        sparse = torch.where((labels == label)[..., None], corner, sparse)
    _, dense = encoder(None, None, None, None)
    return sparse, dense


def _decode_sam2(
    model: PreTrainedModel,
    features: Sequence[Tensor],
    points: Tensor,
    labels: Tensor,
) -> Sequence[Tensor]:
    *fine, coarse = features
    # It pads every prompt, and embeds labels 2 and 3 as a box's corners.
    sparse, dense = model.prompt_encoder(points, labels, None, None)
    masks, scores, _, presence = model.mask_decoder(
        coarse, _positions(model, coarse.shape[0]), sparse, dense, True, fine
    )
    return masks, scores, presence


_SAM = ("image_embeddings", "image_positional_embeddings")
_HQ = (*_SAM, "intermediate_embeddings.0")
_SAM2 = tuple(f"image_embeddings.{level}" for level in range(3))
_RESULTS = ("pred_masks", "iou_scores")


_FAMILY2 = Family(
    model="Sam2Model",
    processor="Sam2Processor",
    features=_SAM2,
    outputs=(*_RESULTS, "object_score_logits"),
    pooled=_SAM2[-1],
    encode=_encode_sam2,
    decode=_decode_sam2,
    given=lambda features: {"image_embeddings": list(features)},
    pads=True,
)
# By model type. A video model's checkpoint holds the model for images.
FAMILIES: dict[str, Family] = {
    "sam": Family(
        model="SamModel",
        processor="SamProcessor",
        features=_SAM,
        outputs=_RESULTS,
        pooled=_SAM[0],
        encode=_encode_sam,
        decode=_decode_sam,
        given=lambda features: {"image_embeddings": features[0]},
    ),
    "sam_hq": Family(
        model="SamHQModel",
        processor="SamHQProcessor",
        features=_HQ,
        outputs=_RESULTS,
        pooled=_HQ[0],
        encode=_encode_hq,
        decode=_decode_hq,
        given=lambda features: {
            "image_embeddings": features[0],
            "intermediate_embeddings": [features[2]],
        },
    ),
    "sam2": _FAMILY2,
    "sam2_video": _FAMILY2,
}
