"""A directory as sentence-transformers reads it: a sequence of modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
)

from fmrt.errors import ExportError
from fmrt.export.choices import Choice
from fmrt.export.loading.pretrained import cannot_load
from fmrt.export.loading.tokenizer import (
    check_packages,
    check_rows,
    check_tokenizer,
    rows_of,
    why_not_loaded,
)
from fmrt.export.quiet import listening

# Modules that a graph and a manifest can state. Anything else is refused by its name.
MODULES = (Transformer, Pooling, Dense, Normalize, LayerNorm, Dropout)


def load_sentence_transformer(
    path: Path, device: str, trust: bool
) -> tuple[SentenceTransformer, Sequence[Choice]]:
    """A directory as sentence-transformers reads it, in float32, with what libraries warned of.

    Raises:
        ExportError: It cannot be loaded, or needs Python code of its author without ``trust``.
    """
    check_packages(path)
    try:
        with listening() as said:
            model = SentenceTransformer(
                str(path),
                device=device,
                local_files_only=True,
                trust_remote_code=trust,
                model_kwargs={"dtype": torch.float32},
            )
    except Exception as e:  # whatever a malformed model directory provokes
        why = why_not_loaded(path) if "processing class" in str(e) else None
        raise (ExportError(why) if why else cannot_load(str(path), path, e)) from e
    for text in said:
        if "trust_remote_code" in text:  # something else was taken in the code's place
            raise cannot_load(str(path), path, RuntimeError(text))
    return model, [Choice("note", text, "a library's warning") for text in said]


def check_modules(model: SentenceTransformer, name: str) -> None:
    """Raise unless a model is one text transformer, one pooling, and what may come after.

    Raises:
        ExportError: A module is another; the message has its name.
    """
    for module in model:
        if not isinstance(module, MODULES):
            raise ExportError(
                f"{name} has a {type(module).__name__} module, which cannot be exported; "
                f"those that can: {', '.join(m.__name__ for m in MODULES)}"
            )
    if not isinstance(model[0], Transformer) or "text" not in model[0].modalities:
        raise ExportError(f"{name} does not start with a text transformer")
    if sum(isinstance(m, Pooling) for m in model) != 1:
        raise ExportError(f"{name} has no pooling module, or several; exactly one can be exported")
    check_tokenizer(model.tokenizer, name)
    check_rows(model.tokenizer, rows_of(model[0].auto_model), name)
