"""A directory is what it says it is: strange and hostile ones are refused, and run no code."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fmrt
from fmrt.errors import ExportError
from tests.export.models import TINY, save_tiny

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
