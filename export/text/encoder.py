"""The encoder of an encoder-decoder, in sentence-transformers' module."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from sentence_transformers.base.modules import Transformer
from transformers import AutoModel

from fmrt.export.quiet import quiet


def load_whole(transformer: Transformer, path: Path, device: str, trust: bool) -> None:
    """Load encoder and decoder, where the encoder alone does not find its weights.

    sentence-transformers loads the encoder of the types it knows alone, and for some of them their
    checkpoints' names do not fit.
    """
    with quiet():
        model = AutoModel.from_pretrained(
            str(path), dtype=torch.float32, local_files_only=True, trust_remote_code=trust
        )
    transformer.model = model.eval().to(device)


def take_encoder(transformer: Transformer) -> bool:
    """Leave the decoder out: it would embed what it is about to write. False if there is none."""
    model = transformer.model
    if not getattr(model.config, "is_encoder_decoder", False) or not hasattr(model, "decoder"):
        return False
    transformer.model = model.get_encoder()
    if not hasattr(transformer.model, "config"):  # FSMT's has none of its own
        transformer.model.config = model.config
    taken = inspect.signature(transformer.model.forward).parameters.values()
    names = {p.name for p in taken}
    transformer._declared_forward_params = names  # read once, when it is made
    free = any(p.kind is p.VAR_KEYWORD for p in taken)
    transformer.model_forward_params = None if free else names
    return True
