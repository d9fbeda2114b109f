"""Every family of text models, through the torch-free runtime, gives PyTorch's vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fmrt
from tests.export.models import TEXTS, TINY, Tiny, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity


@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.model_type)
def test_family_matches_pytorch(tiny: Tiny, tmp_path: Path) -> None:
    model = save_tiny(tiny, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    names = [v.name for v in bundle.manifest.variants]
    assert names == ["fp32", "fp32-cpu"]
    # Without special tokens a blank text has no tokens, and no model embeds that.
    texts = TEXTS[1:] if tiny.tokenizer == "bpe-plain" else TEXTS
    want = TorchEmbedder(model, bundle.manifest.text.max_length).embed(texts)
    for name in names:
        with fmrt.Embedder(bundle, variant=name) as embedder:
            got = embedder.embed(texts, on_too_long="truncate", batch_tokens=4096)
            alone = np.stack([embedder.embed([t], on_too_long="truncate")[0] for t in texts])
        assert_parity(got, want)
        assert np.abs(got - alone).max() <= 2e-6 * np.abs(want).max()
