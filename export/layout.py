"""Writes the files of a bundle, in the layout that other consumers of ONNX models expect too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.sentence_transformer.modules import Pooling

from fmrt.export.sizes import with_sizes
from fmrt.export.source import TextSource
from fmrt.export.vocabulary import write_vocabulary
from fmrt.manifest import Variant

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
    _write(
        directory / "sentence_bert_config.json",
        {"max_seq_length": source.max_length, "do_lower_case": False},
    )
    _write(
        directory / "config_sentence_transformers.json",
        {
            "prompts": source.model.prompts,
            "default_prompt_name": source.model.default_prompt_name,
            "similarity_fn_name": source.model.similarity_fn_name,
        },
    )
    _write_modules(source, directory)


def write_config(
    backbone: Any,  # noqa: ANN401  # a transformers model
    directory: Path,
    variants: Sequence[Variant],
    longest_text: int | None = None,
) -> None:
    """Write ``config.json`` of a transformers model.

    Args:
        backbone: the model.
        directory: of the bundle.
        variants: all of its graphs.
        longest_text: most tokens of a text; None for models of other items.
    """
    config = with_sizes(backbone.config, longest_text)
    config["architectures"] = [type(backbone).__name__]
    # In browsers transformers.js takes q8 unless it is told otherwise, which not every bundle has.
    section: dict[str, Any] = {"dtype": "fp32"}
    external = {Path(v.file).name: 1 for v in variants if v.external}
    if external:
        section["use_external_data_format"] = external
    config["transformers.js_config"] = section
    _write(directory / "config.json", config)


def save_tokenizer(
    tokenizer: Any,  # noqa: ANN401  # a transformers tokenizer
    max_length: int,
    directory: Path,
    *,
    full_length: bool = False,
) -> None:
    """Write the files of a transformers tokenizer, with its limit of length and its padding.

    Args:
        tokenizer: of the model.
        max_length: most tokens of a text, special tokens included.
        directory: of the bundle.
        full_length: whether every text is padded to ``max_length``.
    """
    tokenizer.model_max_length = max_length
    # A length that a model's authors tokenized with once; fastembed would cut texts there.
    tokenizer.init_kwargs.pop("max_length", None)
    backend = tokenizer.backend_tokenizer
    # The runtime sets both itself; who reads the file alone is to have the model's own.
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    if tokenizer.pad_token_id is not None:
        backend.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=max_length if full_length else None,
        )
    else:
        backend.no_padding()
    tokenizer.save_pretrained(str(directory))
    # transformers 5 writes it no more, and older consumers need it.
    _write(directory / "special_tokens_map.json", dict(tokenizer.special_tokens_map))
    write_vocabulary(tokenizer, directory)


def _write_modules(source: TextSource, directory: Path) -> None:
    entries = []
    for index, module in enumerate(source.model):
        kind = type(module).__name__
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
            _write(directory / path / "config.json", _legacy_pooling(source))
        elif index:
            module.save(str(directory / path))
    _write(directory / "modules.json", entries)


def _legacy_pooling(source: TextSource) -> dict[str, Any]:
    pooling = source.pooling
    flags = {key: mode in source.pooling_modes for mode, key in LEGACY_POOLING.items()}
    return {
        "word_embedding_dimension": pooling.embedding_dimension,
        **flags,
        "include_prompt": pooling.include_prompt,
    }


def _write(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
