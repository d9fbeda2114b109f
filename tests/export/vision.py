"""Tiny random vision models with their real image processors, written as directories."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModel

from fmrt.export.quiet import quiet

TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.1,
}


@dataclass(frozen=True)
class TinyVision:
    """One architecture.

    Attributes:
        model_type: The type in its ``config.json``.
        processor: class of its image processor, without ``Pil``.
        config: its configuration.
        options: The image processor's options.
        pooling: The pooling that the exporter must choose.
    """

    model_type: str
    processor: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    pooling: str = "pooler"


SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
CONVNET = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
VISION = (
    TinyVision("vit", "ViTImageProcessor", TRANSFORMER, SQUARE, "cls"),
    TinyVision("vit_mae", "ViTImageProcessor", TRANSFORMER, SQUARE, "cls"),
    TinyVision("beit", "BeitImageProcessor", TRANSFORMER, SQUARE),
    TinyVision("dinov2", "BitImageProcessor", TRANSFORMER, CROPPED),
    TinyVision("dinov2_with_registers", "BitImageProcessor", TRANSFORMER, CROPPED),
    TinyVision("dinov3_vit", "DINOv3ViTImageProcessor", TRANSFORMER, SQUARE),
    TinyVision(
        "swin",
        "ViTImageProcessor",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
            "initializer_range": 0.1,
        },
        SQUARE,
    ),
    TinyVision("convnext", "ConvNextImageProcessor", CONVNET, {"size": {"shortest_edge": 32}}),
    TinyVision(
        "resnet",
        "ConvNextImageProcessor",
        {**CONVNET, "embedding_size": 8},
        {"size": {"shortest_edge": 384}},
    ),
    TinyVision("siglip_vision_model", "SiglipImageProcessor", TRANSFORMER, SQUARE),
    TinyVision("clip_vision_model", "CLIPImageProcessor", TRANSFORMER, CROPPED),
)


def save_vision(tiny: TinyVision, directory: Path) -> Path:
    """Write the model and its image processor."""
    torch.manual_seed(0)
    with quiet():
        model = AutoModel.from_config(CONFIG_MAPPING[tiny.model_type](**tiny.config))
        model.save_pretrained(directory)
        if tiny.model_type == "dinov3_vit":  # its class needs torchvision
            processor = transformers.ViTImageProcessorPil(**tiny.options, resample=3)
        else:
            processor = getattr(transformers, f"{tiny.processor}Pil")(**tiny.options)
        processor.save_pretrained(directory)
    path = directory / "preprocessor_config.json"
    path.write_text(
        path.read_text().replace("ViTImageProcessor", tiny.processor)
        if tiny.model_type == "dinov3_vit"
        else path.read_text()
    )
    return directory
