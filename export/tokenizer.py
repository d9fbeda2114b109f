"""Refuses tokenizers that the runtime cannot have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmrt.errors import ExportError

# Beside those that a tokenizer's class names.
FILES = ("tokenizer.json", "tekken.json", "*.model", "*.tiktoken")


def check_tokenizer(tokenizer: Any, name: str) -> None:  # noqa: ANN401  # a transformers tokenizer
    """Raise unless a tokenizer was read from files, and can be written as ``tokenizer.json``.

    Without files transformers makes some classes' tokenizers of their special tokens alone, and
    every text becomes a row of unknown tokens.

    Raises:
        ExportError: it was not, or cannot.
    """
    kind = type(tokenizer).__name__
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ExportError(
            f"{name} has a {kind}, which cannot be saved as tokenizer.json: only fast tokenizers "
            "can be exported"
        )
    path = Path(str(tokenizer.name_or_path))
    wanted = dict.fromkeys((*FILES, *type(tokenizer).vocab_files_names.values()))
    if path.is_dir() and not any(file for pattern in wanted for file in path.glob(pattern)):
        raise ExportError(
            f"{name} has no tokenizer: {path} holds none of {', '.join(wanted)}; copy them from "
            "the model that it was trained from"
        )


def rows_of(backbone: Any) -> int:  # noqa: ANN401  # a transformers model
    """Rows of a text model's embedding table: the token ids that it knows are below."""
    return int(backbone.get_input_embeddings().weight.shape[0])


def check_rows(tokenizer: Any, rows: int, name: str) -> None:  # noqa: ANN401
    """Raise when a tokenizer has tokens beyond a model's embedding table.

    Raises:
        ExportError: it has, with the first of them.
    """
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if beyond:
        first, token = beyond[0]
        others = f" ({len(beyond)} such tokens)" if len(beyond) > 1 else ""
        raise ExportError(
            f"{name}: the tokenizer's token {token!r} has id {first}{others}, and the model's "
            f"embedding table has {rows} rows; resize it (resize_token_embeddings) and train it, "
            "or take the token out of the tokenizer"
        )
