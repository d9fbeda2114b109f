"""A directory is what it says it is: strange and hostile ones are refused, and run no code."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

import fmrt
from fmrt.errors import ExportError, MissingExtraError
from tests.export.models import SMALL, TINY, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity

TEXTS = ["A short sentence.", "x"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
CODE = """
import pathlib
pathlib.Path({ran!r}).touch()
from transformers import BertConfig, BertModel
class Config(BertConfig):
    model_type = "bert_of_mine"
class Model(BertModel):
    config_class = Config
Tokenizer = Processor = Module = Act = Model
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(TINY[0], tmp_path_factory.mktemp("directories") / "model")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def ran(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the code in the directory touches; a question finds a yes on standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    file = model.parent / "ran"
    (model / "mine.py").write_text(CODE.format(ran=str(file)))
    return file


def change(path: Path, **values: Any) -> None:
    stated = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(stated | values))


def refusal(model: Path, **options: Any) -> str:
    out = model.parent / "out"
    with pytest.raises(ExportError) as e:
        fmrt.export_model(model, out, **options)
    assert not out.exists()
    assert "\n" not in str(e.value)
    return str(e.value)


AUTO = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}


def _unknown_type(model: Path) -> None:
    change(model / "config.json", model_type="bert_of_mine", auto_map=AUTO)


def _modules(*types: str, path: str = "") -> Callable[[Path], None]:
    def write(model: Path) -> None:
        entries = [{"idx": i, "name": str(i), "path": path, "type": t} for i, t in enumerate(types)]
        (model / "modules.json").write_text(json.dumps(entries))

    return write


LEGACY = "sentence_transformers.models"


def _dense(model: Path) -> None:
    kinds = ("Transformer", "Pooling", "Dense")
    folders = ("", "1_Pooling", "2_Dense")
    entries = [
        {"idx": i, "name": str(i), "path": folders[i], "type": f"{LEGACY}.{kinds[i]}"}
        for i in range(3)
    ]
    (model / "modules.json").write_text(json.dumps(entries))
    for folder in folders[1:]:
        (model / folder).mkdir()
    change(model / "1_Pooling/config.json", word_embedding_dimension=32)
    change(model / "2_Dense/config.json", in_features=32, out_features=8, bias=True)
    change(model / "2_Dense/config.json", activation_function="mine.Act")
    weights = {f"linear.{key}": v for key, v in torch.nn.Linear(32, 8).state_dict().items()}
    torch.save(weights, model / "2_Dense/pytorch_model.bin")


@pytest.mark.parametrize(
    "attack",
    [_unknown_type, _modules("mine.Module"), _modules("os.system"), _dense],
    ids=["config", "module", "any type", "activation"],
)
def test_code_of_the_directory_is_refused(
    attack: Callable[[Path], None], model: Path, ran: Path
) -> None:
    attack(model)
    said = refusal(model)
    assert "--trust-remote-code" in said
    assert not ran.exists()


def test_a_tokenizer_of_the_authors_code_is_read_from_its_file(model: Path, ran: Path) -> None:
    mine = {"AutoTokenizer": ["mine.Tokenizer", None]}
    change(model / "tokenizer_config.json", tokenizer_class="Mine", auto_map=mine)
    lines: list[str] = []
    bundle = fmrt.export_model(model, model.parent / "out", report=lines.append)
    assert any("not run: tokenizer_config.json: mine.Tokenizer" in line for line in lines)
    assert not ran.exists()
    assert not bundle.manifest.source.remote_code


def test_code_of_the_directory_runs_when_asked_for(
    model: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _unknown_type(model)
    monkeypatch.setenv("HF_MODULES_CACHE", str(model.parent / "modules"))
    lines: list[str] = []
    out = model.parent / "out"
    bundle = fmrt.export_model(model, out, trust_remote_code=True, report=lines.append)
    assert ran.exists()
    assert bundle.manifest.source.remote_code
    assert any("remote code: may run: config.json: mine.Config" in line for line in lines)


def _bert(model: Path, head: str) -> None:
    """The same model below a head."""
    import transformers

    kind = getattr(transformers, head)
    kind.from_pretrained(model).save_pretrained(model)


def _sentence_transformers(kind: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        _modules(f"{LEGACY}.Transformer")(model)
        change(model / "config_sentence_transformers.json", model_type=kind)

    return write


def _splade(model: Path) -> None:
    kinds = "sentence_transformers.sparse_encoder"
    _modules(f"{kinds}.models.MLMTransformer", f"{kinds}.models.SpladePooling")(model)


def _without(model: Path, *kept: str) -> None:
    for file in model.iterdir():
        if file.name not in kept:
            file.unlink()


def _token(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["productx", "producty"])
    tokenizer.save_pretrained(model)


def _fifo(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    os.mkfifo(model / "tokenizer_config.json")


def _pickle(model: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (model.parent / "ran",))

    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))


STRANGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "classifier": (lambda m: _bert(m, "BertForSequenceClassification"), "--pooling mean"),
    "tagger": (lambda m: _bert(m, "BertForTokenClassification"), "BertForTokenClassification"),
    "reranker": (_sentence_transformers("CrossEncoder"), "a pair of texts"),
    "colbert": (_sentence_transformers("MultiVectorEncoder"), "a vector a token"),
    "sparse": (_sentence_transformers("SparseEncoder"), "SparseEncoder"),
    "splade": (_splade, "SPLADE"),
    "outside": (_modules(f"{LEGACY}.Transformer", path="../../etc"), "outside the directory"),
    "absolute": (_modules(f"{LEGACY}.Transformer", path="/etc"), "outside the directory"),
    "no module": (lambda m: (m / "modules.json").write_text('[{"type": 1}]'), "no module"),
    "no JSON": (lambda m: (m / "config.json").write_text("[" * 100_000), "not JSON"),
    "fewer layers": (lambda m: change(m / "config.json", num_hidden_layers=1), "fewer layers"),
    "no layers": (lambda m: change(m / "config.json", num_hidden_layers=0), "fewer layers"),
    "kernel": (
        lambda m: change(m / "config.json", attn_implementation="kernels-community/mine"),
        "code from the hub",
    ),
    "shapes": (lambda m: change(m / "config.json", hidden_size=64), "shapes"),
    "deep": (lambda m: change(m / "config.json", num_hidden_layers=10**9), "no model has so many"),
    "wide": (lambda m: change(m / "config.json", vocab_size=10**12), "parameters"),
    "tokens": (_token, "'productx' has id 30522 (2 such tokens)"),
    "lfs weights": (lambda m: _put(m / "model.safetensors", POINTER), "git lfs pull"),
    "lfs tokenizer": (lambda m: _put(m / "tokenizer.json", POINTER), "git lfs pull"),
    "link to nothing": (lambda m: _link(m / "tokenizer.json", "nowhere"), "link to nothing"),
    "link loop": (lambda m: _link(m / "config.json", "config.json"), "link to nothing"),
    "fifo": (_fifo, "not a regular file"),
    "pickle": (_pickle, "a pickle of more than weights"),
    "bundle": (lambda m: _put(m / "fmrt.json", b"{}"), "is a bundle already"),
    "weights alone": (lambda m: _without(m, "model.safetensors"), "weights alone"),
    "gguf": (lambda m: (_without(m), _put(m / "model.gguf", b""))[0], "GGUF"),
    "empty": (_without, "is empty"),
    "parent": (lambda m: _into(m, "one"), "give one of them: one"),
}


POSIX = ("link to nothing", "link loop", "fifo")


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _into(model: Path, name: str) -> None:
    files = list(model.iterdir())
    (model / name).mkdir()
    for file in files:
        file.rename(model / name / file.name)


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_embedding_model_is_refused_by_what_it_is(kind: str, model: Path) -> None:
    if sys.platform == "win32" and kind in POSIX:
        pytest.skip("no FIFOs, and no links for all")
    change_model, said = STRANGE[kind]
    change_model(model)
    assert said in refusal(model)
    assert not (model.parent / "ran").exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.gguf", "model.safetensors", "notes.txt"])
def test_a_file_is_no_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert "hub id" in refusal(tmp_path / name)


def test_a_head_is_left_out_aloud(model: Path) -> None:
    _bert(model, "BertForSequenceClassification")
    lines: list[str] = []
    fmrt.export_model(model, model.parent / "out", pooling="mean", report=lines.append)
    assert any("left out: BertForSequenceClassification's" in line for line in lines)


def test_the_standard_pooling_follows_the_attention(tmp_path: Path) -> None:
    """A causal decoder saved as its base model says nothing of causal language models."""
    from transformers import AutoModel

    tiny = next(tiny for tiny in TINY if tiny.model_type == "qwen3")
    model = save_tiny(tiny, tmp_path / "model")
    AutoModel.from_pretrained(model).save_pretrained(model)
    lines: list[str] = []
    bundle = fmrt.export_model(model, tmp_path / "out", report=lines.append)
    assert any("pooling: lasttoken (standard for causal attention" in line for line in lines)
    assert bundle.manifest.tower().pooling == "lasttoken"


def _sentencepiece(model: Path) -> Any:
    """A SentencePiece model instead of the tokenizer's files, as XLM-R's first checkpoints."""
    import sentencepiece
    import transformers

    corpus = model.parent / "corpus.txt"
    corpus.write_text("\n".join([*TEXTS, "the quick brown fox jumps over a lazy dog", "0 1 2 3"]))
    sentencepiece.SentencePieceTrainer.Train(
        input=str(corpus),
        model_prefix=str(model / "sentencepiece.bpe"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (model / "tokenizer.json").unlink()
    change(model / "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer")
    config = transformers.XLMRobertaConfig(
        **{**SMALL, "max_position_embeddings": 66}, vocab_size=100, pad_token_id=1
    )
    transformers.XLMRobertaModel(config).save_pretrained(model)
    return sentencepiece.SentencePieceProcessor(str(model / "sentencepiece.bpe.model"))


def test_a_sentencepiece_model_alone_is_a_tokenizer(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = _sentencepiece(model)
    with monkeypatch.context() as missing:
        missing.setattr("fmrt.export.loading.tokenizer.find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match="sentencepiece"):
            fmrt.export_model(model, model.parent / "out")
    bundle = fmrt.export_model(model, model.parent / "out", max_length=64)
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    for text in (*TEXTS, "the fox", "quick  brown"):
        pieces = [processor.id_to_piece(i) for i in processor.encode(text)]
        assert tokenizer.encode(text).tokens[1:-1] == pieces
    with fmrt.Embedder(bundle) as embedder:
        assert_parity(embedder.embed(TEXTS), TorchEmbedder(model).embed(TEXTS))
