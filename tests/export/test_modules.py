"""sentence-transformers directories, in the old and the new form of their modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Pooling,
    StaticEmbedding,
)
from transformers import AutoTokenizer

import fmrt
from fmrt.export.quiet import quiet
from fmrt.export.text import pooling
from tests.export.models import MINILM, TINY, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity

PROMPTS = {"query": "Represent this query: ", "document": "passage: "}
TEXTS = ["", "one", "A sentence of some words.", "words " * 40]


@pytest.fixture(scope="module")
def new_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the modules that can be exported, pooled without the prompt, with a default prompt."""
    root = tmp_path_factory.mktemp("modules")
    save_tiny(TINY[0], root / "backbone")
    torch.manual_seed(1)
    with quiet():
        transformer = Transformer(str(root / "backbone"), max_seq_length=24)
        pooling = Pooling(32, ("mean", "cls"), include_prompt=False)
        modules = [
            transformer,
            pooling,
            LayerNorm(64),
            Dropout(0.5),
            Dense(64, 48, activation_function=torch.nn.Tanh()),
            Normalize(),
        ]
        model = SentenceTransformer(
            modules=modules, prompts=PROMPTS, default_prompt_name="document", device="cpu"
        )
        model.save(str(root / "model"))
    return root / "model"


@pytest.fixture(scope="module")
def old_form(new_form: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as sentence-transformers 2 wrote it."""
    root = tmp_path_factory.mktemp("old") / "model"
    for file in new_form.rglob("*"):
        if file.is_file():
            (root / file.relative_to(new_form)).parent.mkdir(parents=True, exist_ok=True)
            (root / file.relative_to(new_form)).write_bytes(file.read_bytes())
    entries = read(root / "modules.json")
    for entry in entries:
        entry["type"] = "sentence_transformers.models." + entry["type"].rsplit(".", 1)[-1]
    write(root / "modules.json", entries)
    write(root / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write(
        root / "1_Pooling/config.json",
        {
            "word_embedding_dimension": 32,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": False,
        },
    )
    write(
        root / "4_Dense/config.json",
        {
            "in_features": 64,
            "out_features": 48,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    )
    return root


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("form", ["new_form", "old_form"])
def test_directory_matches_sentence_transformers(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(form)
    lines: list[str] = []
    bundle = fmrt.export_model(model, tmp_path / "bundle", report=lines.append)
    said = "\n".join(lines)
    order = "mean+cls" if form == "new_form" else "cls+mean"
    assert f"pooling: {order} (1_Pooling/config.json)" in said
    assert "normalize: yes (modules.json)" in said
    assert "max length: 24" in said
    assert "default document; left out of pooling (config_sentence_transformers.json)" in said
    manifest = bundle.manifest
    assert (manifest.dim, manifest.text.max_length, manifest.tower().pooling) == (48, 24, order)
    assert manifest.text.prompts == PROMPTS
    assert manifest.tower().inputs[-1] == "prompt_length"
    torch_embedder = TorchEmbedder(model)
    with fmrt.Embedder(bundle) as e:
        cut = {"on_too_long": "truncate"}
        assert_parity(e.embed(TEXTS, **cut), torch_embedder.embed(TEXTS))
        query = torch_embedder.embed(TEXTS, prompt_name="query")
        assert_parity(e.embed(TEXTS, prompt_name="query", **cut), query)
        assert_parity(
            e.embed(TEXTS, prompt="odd: ", **cut), torch_embedder.embed(TEXTS, prompt="odd: ")
        )
        assert_parity(e.embed_query(TEXTS[2])[None], query[2:3])
        assert_parity(e.embed(TEXTS, prompt="", **cut), torch_embedder.embed(TEXTS, prompt=""))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an export that fails, and after which nothing is left."""
    from fmrt.cli import main

    out = Path(str(arguments[1]))
    before = sorted(out.parent.iterdir())
    capsys.readouterr()
    assert main(["export", *map(str, arguments)]) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x]
    assert len(lines) == 1
    assert lines[0].startswith("fmrt: error: ")
    assert sorted(out.parent.iterdir()) == before
    return lines[0]


def test_bad_models_and_options_are_refused(
    new_form: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    assert "config.json" in refused(capsys, tmp_path / "empty", out)
    assert "neither" in refused(capsys, "no-such-owner/no-such-model", out)
    assert "not a bundle" in refused(capsys, new_form, tmp_path / "full")
    assert "mean_sqrt" in refused(capsys, new_form, out, "--pooling", "median")
    assert "takes 64" in refused(capsys, new_form, out, "--pooling", "max")
    assert "1 to 64" in refused(capsys, new_form, out, "--max-length", "65")
    assert "opset" in refused(capsys, new_form, out, "--opset", "9")
    assert "local directory" in refused(capsys, new_form, out, "--revision", "main")
    assert "device" in refused(capsys, new_form, out, "--device", "abacus")


def test_a_checkpoint_without_all_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    model = save_tiny(TINY[0], tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "encoder.layer.1.output.dense.weight" in refused(capsys, model, tmp_path / "out")


def test_a_model_without_a_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers would make one of BERT's special tokens alone."""
    model = save_tiny(TINY[0], tmp_path / "model")
    for file in (model / "tokenizer.json", model / "tokenizer_config.json"):
        file.unlink()
    said = refused(capsys, model, tmp_path / "out")
    assert "no tokenizer" in said
    assert "vocab.txt" in said


def test_an_unknown_module_is_refused_by_name(
    new_form: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    save_tiny(TINY[0], tmp_path / "backbone")
    with quiet():
        backbone = Transformer(str(tmp_path / "backbone"))
        modules = [backbone, WeightedLayerPooling(32, num_hidden_layers=2), Pooling(32)]
        SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    assert "WeightedLayerPooling" in refused(capsys, tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_static_embedding_is_a_look_up_and_a_mean(tmp_path: Path, stored: torch.dtype) -> None:
    """Without special tokens, whatever the tokenizer's file would add; model2vec stores halves."""
    torch.manual_seed(0)
    table = torch.randn(30522, 16).to(stored)
    tokenizer = AutoTokenizer.from_pretrained(MINILM).backend_tokenizer
    tokenizer.no_truncation()
    with quiet():
        modules = [StaticEmbedding(tokenizer, table.float()), Dense(16, 8), Normalize()]
        model = SentenceTransformer(
            modules=modules, prompts=PROMPTS, default_prompt_name="document", device="cpu"
        )
        model.save(str(tmp_path / "model"))
    if stored == torch.float16:
        file = next((tmp_path / "model").rglob("model.safetensors"))
        save_file({"embeddings": table}, file)
        with quiet():
            model = SentenceTransformer(str(tmp_path / "model"), device="cpu").float()
    bundle = fmrt.export_model(tmp_path / "model", tmp_path / "bundle")
    texts = [*TEXTS[1:], "many words " * 1000]
    with fmrt.Embedder(bundle) as embedder:
        assert_parity(embedder.embed(texts), model.encode(texts))
        query = model.encode(texts, prompt_name="query")
        assert_parity(embedder.embed(texts, prompt_name="query"), query)
    with pytest.raises(fmrt.FmrtError, match="the mean"):
        fmrt.export_model(tmp_path / "model", tmp_path / "out", pooling="cls")


def test_a_failure_leaves_the_old_bundle(
    new_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    fmrt.export_model(new_form, out)
    before = (out / "fmrt.json").read_bytes()
    with pytest.raises(fmrt.FmrtError, match="overwrite"):
        fmrt.export_model(new_form, out)
    monkeypatch.setattr("fmrt.export.graphs.trace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fmrt.export_model(new_form, out, overwrite=True)
    assert (out / "fmrt.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_wrong_graph_gives_no_bundle(
    new_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pooling.POOLINGS, "mean", lambda p: p.hidden[:, -1])
    with pytest.raises(fmrt.FmrtError, match="does not give PyTorch's vectors"):
        fmrt.export_model(new_form, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_weights_past_the_limit_go_beside_the_graph(
    new_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmrt.export.graph_file.EXTERNAL_DATA_BYTES", 1000)
    bundle = fmrt.export_model(new_form, tmp_path / "bundle")
    assert (bundle.path / "onnx/model.onnx_data").stat().st_size > 1000
    config = read(bundle.path / "config.json")
    assert config["transformers.js_config"]["use_external_data_format"]["model.onnx"] == 1
    with fmrt.Embedder(bundle) as embedder:
        assert_parity(embedder.embed(TEXTS[:3]), TorchEmbedder(new_form).embed(TEXTS[:3]))
