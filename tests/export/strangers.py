"""What other consumers of a bundle read of it, as they read it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoConfig

from fmrt.bundle.bundle import Bundle
from fmrt.export.writing.sizes import SIZES
from fmrt.preprocess import TOKENIZER_FILE


def check_for_strangers(bundle: Bundle, model: Path) -> None:
    """Check a bundle's files: no path of this machine, sizes by their common names, a tokenizer.

    Args:
        bundle: The bundle of the export.
        model: the directory that was exported.
    """
    check_paths(bundle.path, model)
    stated = json.loads((bundle.path / "config.json").read_text())
    assert stated["transformers.js_config"]["dtype"] == "fp32"
    loaded = AutoConfig.from_pretrained(bundle.path)
    for name in set(SIZES) & set(stated):
        assert getattr(loaded, name) == stated[name], name
    if (bundle.path / TOKENIZER_FILE).is_file():
        assert all(stated[name] > 0 for name in SIZES)
        check_tokenizer(bundle)


def check_paths(directory: Path, model: Path) -> None:
    """No file, binary ones too, holds the path of the source or of a home or working directory."""
    places = {str(p).encode() for p in (model, model.parent, Path.home(), Path.cwd())}
    for file in (p for p in directory.rglob("*") if p.is_file()):
        content = file.read_bytes()
        assert not [p for p in places if p in content], file
        assert b"local_files_only" not in content, file
        assert b"name_or_path" not in content, file


def check_tokenizer(bundle: Bundle) -> None:
    """The tokenizers library alone cuts and pads as the model's own tokenizer does."""
    spec = bundle.manifest.text
    tokenizer = Tokenizer.from_file(str(bundle.path / TOKENIZER_FILE))
    stated = json.loads((bundle.path / "tokenizer_config.json").read_text())
    long, short = tokenizer.encode_batch(["many words " * 999, "words"])
    assert len(long.ids) == len(short.ids) == spec.max_length
    assert len(tokenizer.encode("many words " * 999).ids) == spec.max_length
    fill = [spec.pad_token_id] * (spec.max_length - sum(short.attention_mask))
    side = stated.get("padding_side", "right")
    assert fill == (short.ids[: len(fill)] if side == "left" else short.ids[-len(fill) :])
    assert tokenizer.truncation["direction"] == spec.truncation_side
    alone = len(tokenizer.encode("words").ids)
    assert alone == (spec.max_length if spec.pad_to_max_length else sum(short.attention_mask))
