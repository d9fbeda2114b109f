"""A configuration class -> a tiny model of that architecture, without knowing it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
)

IMAGE = 64
POSITIONS = 128
IMAGE_KERNEL = 4  # axes
SMALL = 1e-3
# The largest value of a field, by its name; the first pattern that fits counts. Fields that none
# fits keep their default.
LIMITS: tuple[tuple[str, int], ...] = (
    (r"rotary_dim", 4),
    # Windows have 2,048 positions, which is more than a text here has. Scores tie at zero, and
    # which of several equal ones are chosen is a library's whim.
    (r"index_topk|keep_window_size", POSITIONS),
    (r"^vocab|_vocab_size$", 600),
    (r"type_vocab|num_channels|in_channels|in_chans", 1 << 30),
    (r"max_.*position|n_positions|n_ctx|max_seq|seq_length|_positions$|context_length", POSITIONS),
    (r"window|chunk_size", 16),
    (r"num_feat_extract_layers", 1 << 30),
    (r"(^|_)(n|num)_?.*layers?$|(en|de)coder_layers|^depth$|^num_blocks$|layers_block", 2),
    (r"key_value_heads|kv_heads|n_head_kv|num_key_value", 2),
    (r"lora_rank|time_step_rank|dt_rank|rank$", 16),
    (r"(n|num)_.*groups?$|topk_group", 1),
    (r"heads?$|n_head|num_.*heads", 4),
    (r"qk_rope_head_dim|qk_nope_head_dim|head_dim|d_kv|kv_channels|head_size|v_dim|k_dim", 8),
    (r"per_tok|top_?k|moe_k", 2),
    (r"shared_experts", 1),
    (r"experts?$|num_local_experts|moe_num", 4),
    (r"state_size|mamba_d_state|ssm_state", 8),
    (r"intermediate|ffn|d_ff|inner|mlp_dim|hidden_dim|fc_dim", 64),
    (
        r"hidden_size|d_model|n_embd|embed_dim|embedding_size|_dim$|^dim$|width|emb_dim|_size_per",
        32,
    ),
    (r"image_size|img_size|spec_size", IMAGE),
    (r"patch_size|patch_stride", 8),
)
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
SPREAD = 0.1  # of weights: several times the usual, so that items' vectors differ
FIXED = {
    "initializer_range": SPREAD,
    "init_std": SPREAD,
    "head_dim": 8,
    "max_source_positions": 100,  # of two seconds, see `outcome.py`
}


@dataclass(frozen=True)
class Special:
    """What a model type needs in addition to the limits.

    Attributes:
        config: values of its configuration.
        reason: why.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


MAMBA = {"mamba_d_head": 16}
WINDOWS = {"image_size": 64, "window_size": 2}
HIERA = {
    "embed_dim_per_stage": [32, 64, 128, 256],
    "hidden_size": 32,
    "blocks_per_stage": [1, 1, 2, 1],
    "global_attention_blocks": [3],
}
SECTIONS = Special(
    {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 1, 1],
        }
    },
    "the sections of its positions must fill half a head",
)
SPECIAL: dict[str, Special] = {
    "bamba": Special(MAMBA, "its heads must fill the width"),
    "granitemoehybrid": Special(MAMBA, "its heads must fill the width"),
    "falcon_h1": Special({**MAMBA, "mamba_d_ssm": 64}, "its heads must fill the width"),
    "mamba2": Special({"head_dim": 16}, "its heads must fill the width"),
    "timm_backbone": Special({"backbone": "resnet10t"}, "its default is none"),
    "timm_wrapper": Special(
        {
            "architecture": "vit_tiny_patch16_224",
            "model_args": {
                "img_size": 32,
                "patch_size": 8,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 4,
            },
            "pretrained_cfg": {
                "input_size": [3, 32, 32],
                "interpolation": "bicubic",
                "crop_mode": "center",
                "crop_pct": 0.9,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "num_classes": 0,
        },
        "timm's images are prepared as the model says",
    ),
    "textnet": Special({"stem_out_channels": 16}, "the first stage's channels"),
    "wav2vec2-bert": Special({"feature_projection_input_dim": 160}, "two frames of 80 bands"),
    "xlnet": Special({"d_head": 8}, "its heads must fill the width"),
    "cohere_compass_text": Special(
        {
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 10000.0}
                for kind in ("full_attention", "sliding_attention")
            }
        },
        "its default has none",
    ),
    "cosmos3_edge_text": SECTIONS,
    "cvt": Special({"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}),
    "dbrx": Special(
        {
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 64, "moe_num_experts": 4},
        },
        "its parts state no type",
    ),
    "deepseek_v2": Special({"num_experts_per_tok": 2}, "its default has none"),
    "dots1": Special({"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}),
    "donut-swin": Special(WINDOWS, "its windows must fit its smallest map"),
    "efficientnet": Special(
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.1,
            "in_channels": [32, 16, 24, 40, 80, 112, 192],
            "out_channels": [16, 24, 40, 80, 112, 192, 320],
            "hidden_dim": 320,
        },
        "its sizes are multiples of the coefficients",
    ),
    "gemma3n_vision": Special({"model_args": {"channel_multiplier": 0.1}}, "else 300M parameters"),
    "glm4v_moe_text": Special({**SECTIONS.config, "head_dim": 16}, "half of a head has positions"),
    "glm4v_text": SECTIONS,
    "glm_image_text": SECTIONS,
    "glm_ocr_text": SECTIONS,
    "hgnet_v2": Special(
        {
            "stem_channels": [3, 16, 32],
            "stage_in_channels": [32, 32, 64, 64],
            "stage_mid_channels": [16, 16, 16, 16],
            "stage_out_channels": [32, 64, 64, 64],
        },
        "a stage's channels are the next one's",
    ),
    "hunyuan_vl_text": SECTIONS,
    "levit": Special({"patch_size": 16}, "its stem is four convolutions of stride 2"),
    "lfm2_moe": Special({"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "lilt": Special({"hidden_size": 48}, "its width is six tables of positions, and four heads"),
    "longcat_flash": Special({"qk_head_dim": 16}, "the sum of its two parts"),
    "maskformer-swin": Special(WINDOWS, "its windows must fit its smallest map"),
    "swin": Special(WINDOWS, "its windows must fit its smallest map"),
    "mistral4": Special({"head_dim": 16}, "the sum of its two parts"),
    "mobilebert": Special({"intra_bottleneck_size": 32}, "its heads must fill the bottleneck"),
    "moonshine": Special(
        {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
        "its projections are as wide as the model",
    ),
    "moonshine_streaming": Special({"num_key_value_heads": 4}),
    "nemotron": Special({"num_key_value_heads": 2}),
    "nemotron_asr_streaming_encoder": Special(
        {"max_position_embeddings": 512}, "its frames are 80 ms, and sounds have eleven seconds"
    ),
    "qwen2_5_vl_text": SECTIONS,
    "qwen2_vl_text": SECTIONS,
    "qwen4_exp_text": Special(
        {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 32,
            "indexer_compress_ratio": 4,
        },
        "its default has none",
    ),
    "reformer": Special(
        {
            "axial_pos_embds": False,
            "local_attn_chunk_length": 16,
            "lsh_attn_chunk_length": 16,
            "num_buckets": 4,
        },
        "its positions are a product of two tables",
    ),
    "sam2_hiera_det_model": Special(HIERA, "its stages double in width"),
    "sam2_vision_model": Special(
        {"backbone_config": HIERA, "backbone_channel_list": [256, 128, 64, 32]},
        "its stages double in width",
    ),
    "sapiens2": Special({"num_key_value_heads_per_layer": [4, 4]}),
    "xmod": Special({"default_language": "en_XX"}, "its default has none"),
    "zamba": Special(
        {
            "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
            "num_hidden_layers": 3,
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
        }
    ),
    "zamba2": Special(
        {"attention_hidden_size": 64, "attention_head_dim": 16, "mamba_headdim": 16},
        "its heads must fill twice the width",
    ),
}


def tiny_config(model_type: str, tokens: Mapping[str, int], vocabulary: int) -> PretrainedConfig:
    """A small configuration.

    Args:
        model_type: a key of transformers' ``CONFIG_MAPPING``.
        tokens: ids of special tokens by the names of their fields, e.g. ``pad_token_id``.
        vocabulary: number of tokens.
    """
    kind = CONFIG_MAPPING[model_type]
    values = shrunk(kind().to_dict(), tokens, vocabulary)
    special = SPECIAL.get(model_type, Special())
    return kind(**_merged(values, special.config))


def _merged(values: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _merged(values[name], value)
        else:
            values[name] = value
    return values


def shrunk(
    default: Mapping[str, Any], tokens: Mapping[str, int], vocabulary: int
) -> dict[str, Any]:
    """The fields of a default configuration that must change, with smaller values."""
    out: dict[str, Any] = {}
    for name, value in default.items():
        if name.endswith("_token_id"):
            if isinstance(value, int) or name in tokens:
                out[name] = tokens.get(name, 1)
        elif isinstance(value, Mapping) and "model_type" in value:
            out[name] = {"model_type": value["model_type"], **shrunk(value, tokens, vocabulary)}
        elif name in FIXED and value != 0:
            out[name] = FIXED[name]
        else:
            smaller = _smaller(name, value)
            if smaller != value:
                out[name] = smaller
    heads = default.get("num_attention_heads")
    if heads and default.get("num_key_value_heads") == heads:
        out["num_key_value_heads"] = out.get("num_attention_heads", heads)
    return out | {"vocab_size": vocabulary} | _layers(default)


def _layers(default: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with an entry a layer, cut to one layer of each kind (two at least, four at most)."""
    number = next((n for n in LAYERS if isinstance(default.get(n), int)), None)
    if number is None or (number == "num_layers" and "depths" in default):
        return {}
    count = default[number]
    lists = {
        n: v for n, v in default.items() if isinstance(v, list | tuple) and len(v) == count > 1
    }
    if not lists:
        return {}
    kinds = list(zip(*(map(str, v) for v in lists.values()), strict=True))
    kept = sorted(kinds.index(kind) for kind in dict.fromkeys(kinds))[:4]
    kept = kept if len(kept) > 1 else [0, 1]
    cut = {name: [value[i] for i in kept] for name, value in lists.items()}
    return {number: len(kept), **cut}


def _smaller(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        return value
    limit = next((limit for pattern, limit in LIMITS if re.search(pattern, name)), None)
    if isinstance(value, int):
        return value if limit is None else min(value, limit)
    if not value or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return value
    return _stages(name, list(value), limit)


def _stages(name: str, values: list[int], limit: int | None) -> list[int]:
    """Sizes of a model's stages: one layer each, widths that double."""
    if re.search(r"depth|layers", name):
        return [1] * len(values)
    if re.search(r"heads", name):
        return [1 << (v.bit_length() - 1) for v in values]
    if re.search(r"image_size|patch", name):
        return [min(v, limit or v) for v in values]
    if name == "conv_dim":
        return [32] * len(values)
    if re.search(r"sizes|dims?$|channels|width", name) and max(values) > 32:
        return [16 * 2 ** min(i, 3) for i in range(len(values))]
    return values


def build(config: PretrainedConfig) -> Any:
    """A seeded random model; of the language model where the architecture is made for one."""
    torch.manual_seed(0)
    kind = type(config)
    causal = (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING
        and kind not in MODEL_FOR_MASKED_LM_MAPPING
        and not getattr(config, "is_encoder_decoder", False)
    )
    auto: Callable[..., Any] = (AutoModelForCausalLM if causal else AutoModel).from_config
    several = MODEL_MAPPING.get(kind, None)
    if isinstance(several, list | tuple):
        config.architectures = [several[0].__name__]
    model = auto(config).eval().float()
    _fill(model)
    return model


def _fill(model: torch.nn.Module) -> None:
    """Random values for parameters that start as constants, small or not at all."""
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        noise = torch.randn_like(parameter) * SPREAD
        with torch.no_grad():
            if parameter.ndim == 1 and name.endswith("weight"):  # of a norm
                parameter.copy_(1 + noise)
            elif not torch.isfinite(parameter).all() or parameter.abs().max() < SMALL:
                parameter.copy_(noise)
            elif parameter.ndim == IMAGE_KERNEL:  # else an image fades in a deep network
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            elif parameter.ndim == 1:
                parameter.add_(noise)
