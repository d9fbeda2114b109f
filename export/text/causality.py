"""Whether a text model's tokens see those after them, asked of the model itself."""

from __future__ import annotations

import torch
from sentence_transformers.base.modules import Transformer

from fmrt.export.quiet import quiet

TEXT = "An example of a text that a tokenizer splits."
# How much another last token may change a token's state by rounding, as a part of its largest
# component.
UNCHANGED = 1e-5


def is_causal(transformer: Transformer) -> bool:
    """Whether the states of all tokens but the last are the same, whatever the last token is."""
    ids = transformer.tokenizer(TEXT)["input_ids"]
    other = next((token for token in ids if token != ids[-1]), ids[-1])
    with torch.no_grad(), quiet():
        one, two = (_states(transformer, tokens) for tokens in (ids, [*ids[:-1], other]))
    return bool((one - two)[:-1].abs().max() <= UNCHANGED * one.abs().max())


def _states(transformer: Transformer, ids: list[int]) -> torch.Tensor:
    row = torch.tensor([ids], device=transformer.auto_model.device)
    features = transformer({"input_ids": row, "attention_mask": torch.ones_like(row)})
    states: torch.Tensor = features["token_embeddings"][0]
    return states
