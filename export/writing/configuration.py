"""Writes configuration and tokenizer in the layout that other consumers of ONNX models expect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fmrt.bundle.manifest import Variant
from fmrt.export.loading.directory import CONFIG_FILE
from fmrt.export.writing.external import KEY, external_files
from fmrt.export.writing.sizes import with_sizes
from fmrt.export.writing.vocabulary import write_vocabulary


def write_config(
    backbone: PreTrainedModel,
    directory: Path,
    variants: Sequence[Variant],
    longest_text: int | None = None,
) -> None:
    """Write ``config.json`` of a transformers model.

    Args:
        backbone: The model.
        directory: The directory of the bundle.
        variants: All of its graphs.
        longest_text: The largest number of tokens of a text; None for models of other items.
    """
    config = with_sizes(backbone.config, longest_text)
    config["architectures"] = [type(backbone).__name__]
    # In browsers transformers.js takes q8 unless it is told otherwise, which not every bundle has.
    section: dict[str, Any] = {"dtype": "fp32"}
    external = external_files(variants)
    if external:
        section[KEY] = external
    config["transformers.js_config"] = section
    write_json(directory / CONFIG_FILE, config)


def save_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    directory: Path,
    *,
    full_length: bool = False,
) -> None:
    """Write the files of a transformers tokenizer, with its limit of length and its padding.

    Args:
        tokenizer: The tokenizer of the model.
        max_length: The largest number of tokens of a text, special tokens included.
        directory: The directory of the bundle.
        full_length: Whether every text is padded to ``max_length``.
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
    write_json(directory / "special_tokens_map.json", dict(tokenizer.special_tokens_map))
    write_vocabulary(tokenizer, directory)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as transformers does: indented, in UTF-8."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
