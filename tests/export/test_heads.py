"""Pooling, written for a graph, equals sentence-transformers' own on every mode."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from fmrt.export.text.pooling import POOLINGS, OwnPooling, TextEmbedding

LENGTHS = torch.tensor([7, 1, 4, 5])
MODES = [
    *Pooling.POOLING_MODES,
    ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"),
]


class Backbone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(100, 8)
        self.auto_model = SimpleNamespace(config=None)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**features, "token_embeddings": self.table(features["input_ids"])}


def heads(modules: list[torch.nn.Module], pooling: Pooling) -> TextEmbedding:
    modes = (
        pooling.pooling_mode if isinstance(pooling.pooling_mode, tuple) else (pooling.pooling_mode,)
    )
    return TextEmbedding(
        SimpleNamespace(model=modules, pooling_modes=modes, transformer=modules[0])
    )


@pytest.mark.parametrize("prompt", [None, 0, 3])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_pooling_matches(mode: str | tuple[str, ...], side: str, prompt: int | None) -> None:
    pooling = Pooling(8, mode, include_prompt=prompt is None)
    modules = [Backbone(), pooling, Normalize()]
    positions = torch.arange(7)
    mask = (positions < LENGTHS[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    ids = torch.randint(0, 100, mask.shape)
    features = {"input_ids": ids, "attention_mask": mask}
    extra = {} if prompt is None else {"prompt_length": torch.tensor([prompt])}
    got = heads(modules, pooling)(**features, **extra)["sentence_embedding"]
    # A text that is all prompt has nothing to pool: 0/0, -inf or the first token, as it happens.
    rows = (prompt or 0) < LENGTHS
    want = dict(features, **({} if prompt is None else {"prompt_length": prompt}))
    for module in modules:
        want = module(want)
    torch.testing.assert_close(got[rows], want["sentence_embedding"][rows], rtol=1e-6, atol=1e-6)


def test_every_mode_of_sentence_transformers_is_known() -> None:
    assert set(POOLINGS) >= set(Pooling.POOLING_MODES)


@pytest.mark.parametrize("prompt", [None, 3])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_own_pooling_is_theirs_where_both_have_a_mode(
    mode: str | tuple[str, ...], prompt: int | None
) -> None:
    """It gives the reference vectors of modes that sentence-transformers lacks."""
    mask = (torch.arange(7) < LENGTHS[:, None]).long()
    features = {"token_embeddings": torch.randn(4, 7, 8), "attention_mask": mask}
    if prompt is not None:
        features["prompt_length"] = prompt
    got, want = (
        kind(8, mode, include_prompt=prompt is None)(dict(features))["sentence_embedding"]
        for kind in (OwnPooling, Pooling)
    )
    rows = (prompt or 0) < LENGTHS
    torch.testing.assert_close(got[rows], want[rows], rtol=1e-6, atol=1e-6)
