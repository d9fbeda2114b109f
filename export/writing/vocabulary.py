"""The vocabulary in older tokenizers' files, for consumers that do not read tokenizer.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

VOCABULARY = "vocab.txt"
# Parts of a merge.
MERGED = 2
# SentencePiece's models, which nothing but their own trainer writes.
SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")


def write_vocabulary(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write what a transformers tokenizer's kind has next to ``tokenizer.json``.

    That is ``vocab.txt`` of WordPiece, ``vocab.json`` and ``merges.txt`` of byte-pair encoding, and
    the source's own file of SentencePiece. A vocabulary that the form cannot hold is left out.
    """
    kind = type(tokenizer.backend_tokenizer.model).__name__
    if kind == "WordPiece":
        _write_lines(tokenizer.backend_tokenizer.get_vocab(), directory / VOCABULARY)
    if kind == "BPE" and _splits_at_spaces(tokenizer.backend_tokenizer):
        tokenizer.backend_tokenizer.model.save(str(directory))
    origin = Path(str(tokenizer.name_or_path))
    for name in SENTENCEPIECE:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, directory / name)


def _write_lines(vocabulary: dict[str, int], path: Path) -> None:
    """One token per line, its number the token's id."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    whole = [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    if whole and not any(len(token.splitlines()) > 1 for token in tokens):
        path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def _splits_at_spaces(backend: Tokenizer) -> bool:
    """Whether each merge is two parts without a space in them, as ``merges.txt`` has them."""
    merges = json.loads(backend.to_str())["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return all(len(pair) == MERGED and not any(map(_has_space, pair)) for pair in pairs)


def _has_space(part: str) -> bool:
    return any(c.isspace() for c in part)
