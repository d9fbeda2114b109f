"""Tiny random models that segment, with their real processors, written as directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING

from fmrt.export.quiet import quiet

SIDE = 64
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
DECODER = {
    "hidden_size": 32,
    "mlp_dim": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
    "iou_head_depth": 2,
}
ENCODER = {
    "hidden_size": 24,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "window_size": 3,
    "global_attn_indexes": [1],
    "num_pos_feats": 16,
    "mlp_dim": 48,
    "initializer_range": 0.02,
}
HIERA = {
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 2, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [4, 4],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 32,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sam": {
        "vision_config": ENCODER,
        "prompt_encoder_config": PROMPTS,
        "mask_decoder_config": DECODER,
    },
    "sam_hq": {
        "vision_config": ENCODER,
        "prompt_encoder_config": PROMPTS,
        "mask_decoder_config": {**DECODER, "vit_dim": ENCODER["hidden_size"]},
    },
    "sam2": {
        "vision_config": HIERA,
        "prompt_encoder_config": {**PROMPTS, "patch_size": 16},
        "mask_decoder_config": DECODER,
    },
}
NORMALIZED = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 1 / 255,
}
PADDED = {
    "do_pad": True,
    "pad_size": {"height": SIDE, "width": SIDE},
    "size": {"longest_edge": SIDE},
}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
MODELS = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model"}


def save_segmenter(model_type: str, directory: Path) -> Path:
    """Write the model and its processor's configuration."""
    torch.manual_seed(0)
    with quiet():
        config = CONFIG_MAPPING[model_type](**CONFIGS[model_type])
        model = getattr(transformers, MODELS[model_type])(config).eval()
        _spread(model)
        model.save_pretrained(directory)
    _write_processor(model_type, directory)
    return directory


def _write_processor(model_type: str, directory: Path) -> None:
    """As checkpoints have it; SAM 2's class cannot be made without torchvision."""
    options: dict[str, Any] = {"image_processor_type": "SamImageProcessor", **PADDED}
    if model_type == "sam2":
        options = {"image_processor_type": "Sam2ImageProcessorFast", **SQUARE}
    text = json.dumps({**NORMALIZED, **options})
    (directory / "preprocessor_config.json").write_text(text)


def _spread(model: torch.nn.Module) -> None:
    for name, value in model.named_parameters():
        with torch.no_grad():
            if "positional_embedding" in name:
                value.normal_()
            elif "norm" not in name:
                value.normal_(std=0.15)
