"""Writes a text model's configuration, for transformers and sentence-transformers too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.sentence_transformer.modules import Pooling

from fmrt.bundle.manifest import Variant
from fmrt.export.loading.directory import CONFIG_FILE, MODULES_FILE, SENTENCE_TRANSFORMERS
from fmrt.export.text.source import TextSource
from fmrt.export.writing.configuration import save_tokenizer, write_config, write_json

# Pooling's boolean keys, which text-embeddings-inference and others read.
LEGACY_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_text_configuration(
    source: TextSource, directory: Path, variants: Sequence[Variant]
) -> None:
    """Write the tokenizer and the configuration files of transformers and sentence-transformers."""
    save_tokenizer(source.model.tokenizer, source.max_length, directory)
    write_config(source.transformer.auto_model, directory, variants, source.max_length)
    write_json(
        directory / "sentence_bert_config.json",
        {"max_seq_length": source.max_length, "do_lower_case": False},
    )
    write_json(
        directory / SENTENCE_TRANSFORMERS,
        {
            "prompts": source.model.prompts,
            "default_prompt_name": source.model.default_prompt_name,
            "similarity_fn_name": source.model.similarity_fn_name,
        },
    )
    _write_modules(source, directory)


def _write_modules(source: TextSource, directory: Path) -> None:
    entries = []
    for index, module in enumerate(source.model):
        kind = "Pooling" if isinstance(module, Pooling) else type(module).__name__
        path = "" if index == 0 else f"{index}_{kind}"
        entries.append(
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
        )
        if index:
            (directory / path).mkdir()
        if isinstance(module, Pooling):
            write_json(directory / path / CONFIG_FILE, _legacy_pooling(source))
        elif index:
            module.save(str(directory / path))
    write_json(directory / MODULES_FILE, entries)


def _legacy_pooling(source: TextSource) -> dict[str, Any]:
    pooling = source.pooling
    flags: dict[str, Any] = {
        key: mode in source.pooling_modes for mode, key in LEGACY_POOLING.items()
    }
    if not LEGACY_POOLING.keys() >= set(source.pooling_modes):
        # sentence-transformers names a mode that it lacks, instead of another pooling.
        flags = {"pooling_mode": list(source.pooling_modes)}
    return {
        "word_embedding_dimension": pooling.embedding_dimension,
        **flags,
        "include_prompt": pooling.include_prompt,
    }
