"""Decoders that are published as embedding models, in the form of their directories."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer

import fmrt
from fmrt.bundle.manifest import TextInput
from fmrt.export.quiet import quiet
from fmrt.export.writing.configuration import save_tokenizer
from fmrt.preprocess.text import TextPreprocessor
from tests.export.models import DECODERS, TEXTS, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity

EMBEDDING_GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
}
QWEN3_EMBEDDING = {
    "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query"
    "\nQuery:",
    "document": "",
}


def directory(
    place: Path, model_type: str, after: list[Any], pooling: str, prompts: dict[str, str]
) -> Path:
    """A sentence-transformers directory around a tiny decoder."""
    tiny = next(t for t in DECODERS if t.model_type == model_type)
    longer = {**tiny.config, "max_position_embeddings": 128}
    save_tiny(dataclasses.replace(tiny, config=longer), place / "backbone")
    torch.manual_seed(1)
    with quiet():
        transformer = Transformer(str(place / "backbone"), max_seq_length=128)
        modules = [transformer, Pooling(32, pooling), *after]
        model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
        model.save(str(place / "model"))
    return place / "model"


def check(model: Path, place: Path, prompts: dict[str, str]) -> fmrt.Bundle:
    """Each prompt, texts together, in the runtime and in sentence-transformers."""
    bundle = fmrt.export_model(model, place / "bundle")
    assert bundle.manifest.text.prompts == prompts
    embedder = TorchEmbedder(model)
    with fmrt.Embedder(bundle) as e:
        for name in prompts:
            got = e.embed(TEXTS, prompt_name=name, on_too_long="truncate")
            assert_parity(got, embedder.embed(TEXTS, prompt_name=name))
        assert_parity(e.embed(TEXTS, on_too_long="truncate"), embedder.embed(TEXTS))
        query = e.embed_query("A short sentence.")
        assert_parity(query[None], embedder.embed(["A short sentence."], prompt_name="query"))
    return bundle


def test_embedding_gemma(tmp_path: Path) -> None:
    """It attends to both sides, its mean goes through two linear layers and is normalized."""
    torch.manual_seed(2)
    identity = torch.nn.Identity()
    after = [
        Dense(32, 64, bias=False, activation_function=identity),
        Dense(64, 32, bias=False, activation_function=identity),
        Normalize(),
    ]
    model = directory(tmp_path, "gemma3_text", after, "mean", EMBEDDING_GEMMA)
    bundle = check(model, tmp_path, EMBEDDING_GEMMA)
    assert bundle.manifest.tower().normalize


def test_qwen3_embedding(tmp_path: Path) -> None:
    """Its last token is the end-of-text token that the tokenizer adds; queries are instructed."""
    model = directory(tmp_path, "qwen3", [Normalize()], "lasttoken", QWEN3_EMBEDDING)
    bundle = check(model, tmp_path, QWEN3_EMBEDDING)
    tokenizer = AutoTokenizer.from_pretrained(bundle.path)
    assert tokenizer("x").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (True, True), (False, False)])
def test_special_tokens_are_those_of_the_tokenizer_configuration(
    bos: bool, eos: bool, tmp_path: Path
) -> None:
    """``add_bos_token`` and ``add_eos_token``, which ``tokenizer.json`` does not hold by itself."""
    llama_tokenizer(bos, eos).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    save_tokenizer(tokenizer, 16, tmp_path)
    runtime = TextPreprocessor(tmp_path / "tokenizer.json", TextInput(16, 0))
    texts = ["a short text", "many words " * 20]
    encoded = runtime.encode(texts)
    rows = np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1])
    for text, row in zip(texts, rows, strict=True):
        assert row.tolist() == tokenizer(text, truncation=True, max_length=16).input_ids
        assert (row[0] == tokenizer.bos_token_id, row[-1] == tokenizer.eos_token_id) == (bos, eos)


def llama_tokenizer(bos: bool, eos: bool) -> LlamaTokenizer:
    learned = tokenizers.Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=special, initial_alphabet=["▁"], show_progress=False
    )
    learned.train_from_iterator(["a short text of many words"] * 3, trainer)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return LlamaTokenizer(model["vocab"], merges, add_bos_token=bos, add_eos_token=eos)
