"""The main job on the real all-MiniLM-L6-v2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

import fmrt
from benchmarks.measuring.corpus import docstrings
from fmrt.export.quiet import quiet
from tests.export.models import MINILM
from tests.export.reference import TorchEmbedder, assert_parity


@pytest.fixture(scope="module")
def torch_embedder() -> TorchEmbedder:
    return TorchEmbedder(MINILM)


@pytest.fixture(scope="module")
def embedder(minilm: Path):
    with fmrt.Embedder(minilm) as embedder:
        yield embedder


def test_natural_texts_match_pytorch_whatever_the_batch(
    minilm: Path, torch_embedder: TorchEmbedder
) -> None:
    texts = docstrings()[::80]
    want = torch_embedder.embed(texts)
    for variant in ("fp32", "fp32-cpu"):
        with fmrt.Embedder(minilm, variant=variant) as embedder:
            assert embedder.variant == variant
            alone = np.stack([embedder.embed([t], on_too_long="truncate")[0] for t in texts])
            for budget in (1, 512, 16384):
                got = embedder.embed(texts, on_too_long="truncate", batch_tokens=budget)
                assert_parity(got, want)
                assert np.abs(got - alone).max() <= 2e-6


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60),
        min_size=1,
        max_size=6,
    )
)
def test_any_unicode_matches_pytorch(
    embedder, torch_embedder: TorchEmbedder, texts: list[str]
) -> None:
    assert_parity(embedder.embed(texts), torch_embedder.embed(texts))


def test_the_bundle_has_the_layout_that_others_read(minilm: Path) -> None:
    graph = onnx.load(minilm / "onnx/model.onnx")
    onnx.checker.check_model(graph)
    assert {o.domain for o in graph.opset_import} == {""}
    assert {n.domain for n in graph.graph.node} == {""}
    assert [i.name for i in graph.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [o.name for o in graph.graph.output] == ["last_hidden_state", "sentence_embedding"]
    assert not (minilm / "model.onnx").exists()
    pooling = json.loads((minilm / "1_Pooling/config.json").read_text())
    assert pooling["word_embedding_dimension"] == 384
    assert pooling["pooling_mode_mean_tokens"] is True
    assert pooling["pooling_mode_cls_token"] is False
    tokenizer = json.loads((minilm / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 256
    assert "max_length" not in tokenizer
    modules = json.loads((minilm / "modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
    ]
    assert json.loads((minilm / "special_tokens_map.json").read_text())["pad_token"] == "[PAD]"
    assert json.loads((minilm / "config.json").read_text())["architectures"] == ["BertModel"]


def test_sentence_transformers_reads_the_bundles_modules(minilm: Path, tmp_path: Path) -> None:
    """The bundle plus the weights is a sentence-transformers model again."""
    for file in minilm.rglob("*"):
        if file.suffix == ".json":
            target = tmp_path / file.relative_to(minilm)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").symlink_to(MINILM / "model.safetensors")
    with quiet():
        model = SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == 256
    assert [type(m).__name__ for m in model] == ["Transformer", "Pooling", "Normalize"]


def test_verify_and_info_report_the_variants(
    minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmrt.cli import main

    assert main(["verify", str(minilm)]) == 0
    assert main(["info", str(minilm)]) == 0
    out = capsys.readouterr().out
    assert out.count("fp32-cpu") >= 2


def test_options_change_the_graph(tmp_path: Path, torch_embedder: TorchEmbedder) -> None:
    bundle = fmrt.export_model(
        MINILM, tmp_path / "bundle", pooling="cls+max", normalize=False, max_length=16, opset=18
    )
    assert (bundle.manifest.dim, bundle.manifest.text.max_length) == (768, 16)
    assert bundle.manifest.tower().pooling == "cls+max"
    graph = onnx.load(bundle.path / "onnx/model.onnx", load_external_data=False)
    assert [o.version for o in graph.opset_import if o.domain == ""] == [18]
    with fmrt.Embedder(bundle) as embedder:
        vectors = embedder.embed(["a text"])
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
