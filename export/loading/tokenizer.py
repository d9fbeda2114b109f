"""Refuses tokenizers that the runtime cannot have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fmrt.errors import ExportError, MissingExtraError
from fmrt.export.loading.pretrained import load_pretrained
from fmrt.preprocess import TOKENIZER_FILE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# In addition to those that a tokenizer's class names.
FILES = (TOKENIZER_FILE, "tekken.json", "*.model", "*.tiktoken")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise unless a tokenizer was read from files, and can be written as ``tokenizer.json``.

    Without files transformers makes some classes' tokenizers of their special tokens alone, and
    every text becomes a row of unknown tokens.

    Raises:
        ExportError: The tokenizer was not read from files, or cannot be written so.
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


def check_packages(path: Path) -> None:
    """Raise when a directory's tokenizer is a SentencePiece model, and nothing here reads that.

    Raises:
        MissingExtraError: The package that reads a SentencePiece model is missing.
    """
    alone = not (path / TOKENIZER_FILE).exists() and any(path.glob("*.model"))
    if alone and find_spec("sentencepiece") is None:
        raise MissingExtraError(f"The SentencePiece tokenizer of {path}", "export", "sentencepiece")


def why_not_loaded(path: Path) -> str | None:
    """What is wrong with a directory's tokenizer, where a library says that there is none."""
    try:
        load_tokenizer(path)
    except ExportError as e:
        return str(e)
    return None


def take_tokenizer(model: SentenceTransformer, directories: Sequence[Path]) -> Path | None:
    """Give a sentence-transformers model the tokenizer that one of its adapters brings.

    Returns:
        The directory that it is from, or None where the model has its tokens already.

    Raises:
        ExportError: It cannot be loaded, or two adapters bring different ones.
    """
    found: dict[str, tuple[Path, Any]] = {}
    for directory in directories:
        if any(
            file
            for pattern in (*FILES, "tokenizer_config.json")
            for file in directory.glob(pattern)
        ):
            tokenizer = load_tokenizer(directory)
            found.setdefault(_meaning(tokenizer), (directory, tokenizer))
    if len(found) > 1:
        raise ExportError(
            f"{' and '.join(str(path) for path, _ in found.values())} bring different tokenizers, "
            "and a model has one"
        )
    for meaning, (directory, tokenizer) in found.items():
        if meaning != _meaning(model.tokenizer):
            tokenizer.model_max_length = min(tokenizer.model_max_length, model.max_seq_length)
            model[0].processor = tokenizer
            return directory
    return None


def load_tokenizer(directory: Path, *, trust: bool = False) -> PreTrainedTokenizerBase:
    """The transformers tokenizer in a directory; ``trust`` lets Python files there run.

    Raises:
        ExportError: It cannot be loaded.
    """
    return load_pretrained(
        AutoTokenizer.from_pretrained, directory, f"the tokenizer of {directory}", trust=trust
    )


def take_dropout(tokenizer: PreTrainedTokenizerBase) -> float:
    """Turn a tokenizer's BPE dropout off, with which a text has other tokens each time.

    Returns:
        What it was.
    """
    model = tokenizer.backend_tokenizer.model
    dropout = float(getattr(model, "dropout", None) or 0)
    if dropout:
        model.dropout = None
    return dropout


def _meaning(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that changes a text's tokens."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({key: spec[key] for key in spec if key not in ("padding", "truncation")})


def rows_of(backbone: PreTrainedModel) -> int:
    """Rows of a text model's embedding table: the token ids that it knows are below."""
    return int(backbone.get_input_embeddings().weight.shape[0])


def check_rows(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Raise when a tokenizer has tokens beyond a model's embedding table.

    Raises:
        ExportError: The tokenizer has such tokens; the message names the first of them.
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
