"""Every family of text models, through the torch-free runtime, gives PyTorch's vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer

import fmrt
from fmrt.bundle.bundle import Bundle
from tests.export.models import DECODERS, ENCODERS, TEXTS, Tiny, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity
from tests.export.strangers import check_for_strangers

BOTH = "mean+lasttoken"


def named(tiny: Tiny) -> str:
    return tiny.model_type


@pytest.mark.parametrize("tiny", ENCODERS, ids=named)
def test_encoder_matches_pytorch(tiny: Tiny, tmp_path: Path) -> None:
    model = save_tiny(tiny, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    embedder = TorchEmbedder(model, bundle.manifest.text.max_length)
    if tiny.model_type == "bart":
        embedder.model[0].model = embedder.model[0].model.get_encoder()
    assert bundle.manifest.tower().pooling == "mean"
    check_for_strangers(bundle, model)
    check(bundle, embedder, TEXTS)


@pytest.mark.parametrize(
    "tiny",
    # The first and Phi-3 are Llama with grouped heads, which is there too.
    [
        pytest.param(t, marks=pytest.mark.slow) if t is DECODERS[0] or t.model_type == "phi3" else t
        for t in DECODERS
    ],
    ids=named,
)
def test_decoder_matches_pytorch(tiny: Tiny, tmp_path: Path) -> None:
    """Mean and last token in one export, as two halves of a vector; padding on either side."""
    model = save_tiny(tiny, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle", pooling=BOTH)
    check_for_strangers(bundle, model)
    embedder = TorchEmbedder(model, bundle.manifest.text.max_length)
    width = embedder.model[1].embedding_dimension
    embedder.model[1] = Pooling(width, tuple(BOTH.split("+")))
    # Without special tokens a blank text has no tokens, and no model embeds that.
    texts = TEXTS[1:] if tiny.tokenizer == "bpe-plain" else TEXTS
    want = check(bundle, embedder, texts)
    for side in ("left", "right"):
        assert_parity(padded(bundle, texts, side), want)


def check(bundle: Bundle, embedder: TorchEmbedder, texts: list[str]) -> np.ndarray:
    """Both variants, texts together and each alone."""
    names = [v.name for v in bundle.manifest.variants]
    assert names == ["fp32", "fp32-cpu"]
    want = embedder.embed(texts)
    for name in names:
        with fmrt.Embedder(bundle, variant=name) as e:
            got = e.embed(texts, on_too_long="truncate", batch_tokens=4096)
            alone = np.stack([e.embed([t], on_too_long="truncate")[0] for t in texts])
        assert_parity(got, want)
        assert np.abs(got - alone).max() <= 2e-6 * np.abs(want).max()
    return want


def padded(bundle: Bundle, texts: list[str], side: str) -> np.ndarray:
    """What a consumer gets that runs the portable graph on the bundle's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(bundle.path, padding_side=side)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(bundle.path / "onnx/model.onnx")
    feeds = {i.name: batch[i.name].astype(np.int64) for i in session.get_inputs()}
    return session.run(["sentence_embedding"], feeds)[0]


@pytest.mark.slow
def test_a_causal_language_model_ends_in_its_last_token(tmp_path: Path) -> None:
    model = save_tiny(DECODERS[0], tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    assert bundle.manifest.tower().pooling == "lasttoken"
    check(bundle, TorchEmbedder(model, 64), TEXTS)
