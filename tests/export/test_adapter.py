"""Adapters are merged as PEFT applies them, or refused; never left out in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

import fmrt
from fmrt.cli import main
from fmrt.errors import ExportError, FmrtError, OptionError
from fmrt.export.loading.adapter import AdapterFiles, attach, check_against_peft
from fmrt.export.quiet import quiet
from tests.export.models import TINY, save_tiny
from tests.export.reference import TorchEmbedder, assert_parity

TEXTS = ["A short sentence.", "Another one, somewhat longer.", "x"]
TARGETS = {"bert": ["query", "value", "dense"], "llama": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module", params=["bert", pytest.param("llama", marks=pytest.mark.slow)])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = next(tiny for tiny in TINY if tiny.model_type == request.param)
    return save_tiny(tiny, tmp_path_factory.mktemp("base") / request.param)


def make_adapter(base: Path, directory: Path, seed: int = 1, **options: Any) -> Path:
    """A random LoRA whose change of the weights is not zero; of the language model for llama."""
    torch.manual_seed(seed)
    auto = AutoModelForCausalLM if base.name == "llama" else AutoModel
    with quiet():
        targets = {"target_modules": TARGETS[base.name]}
        config = LoraConfig(**{"r": 4, "lora_alpha": 8, **targets, **options})
        model = get_peft_model(auto.from_pretrained(base), config)
        for name, value in model.named_parameters():
            if "lora_B" in name or "lora_magnitude" in name:
                value.data += torch.randn_like(value) * 0.2
        model.save_pretrained(directory)
    return directory


def pytorch(base: Path, adapters: Sequence[tuple[Path, float]]) -> np.ndarray:
    """Vectors with PEFT's unmerged adapters around the backbone."""
    embedder = TorchEmbedder(base, 62)
    with quiet():
        if base.name == "llama":
            whole = AutoModelForCausalLM.from_pretrained(base)
            whole.model = embedder.model[0].auto_model
        else:
            whole = embedder.model[0].auto_model
        for i, (path, _) in enumerate(adapters):
            if i:
                whole.load_adapter(str(path), adapter_name=str(i))
            else:
                whole = PeftModel.from_pretrained(whole, str(path), adapter_name="0")
        whole.base_model.set_adapter([str(i) for i in range(len(adapters))])
        for module in whole.modules():
            for i, (_, weight) in enumerate(adapters):
                if isinstance(module, LoraLayer) and str(i) in module.scaling:
                    module.scaling[str(i)] *= weight
    return embedder.embed(TEXTS)


def vectors(bundle: fmrt.Bundle) -> np.ndarray:
    with fmrt.Embedder(bundle) as embedder:
        return embedder.embed(TEXTS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "alpha_pattern": {"query": 2, "q_proj": 2}},
        {"use_dora": True},
    ],
    ids=["lora", "rslora", "dora"],
)
def test_an_adapter_is_merged(base: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    bundle = fmrt.export_model(base, tmp_path / "bundle", adapter=adapter)
    got = vectors(bundle)
    assert_parity(got, pytorch(base, [(adapter, 1.0)]))
    assert np.abs(got - TorchEmbedder(base, 62).embed(TEXTS)).max() > 1e-2
    (record,) = fmrt.Bundle.open(tmp_path / "bundle").manifest.source.adapters
    assert (record.model, record.weight) == (adapter.name, 1.0)


def test_several_adapters_add_up(base: Path, tmp_path: Path) -> None:
    one = make_adapter(base, tmp_path / "one", 1)
    two = make_adapter(base, tmp_path / "two", 2, r=2, use_rslora=True)
    out = str(tmp_path / "bundle")
    command = ["export", str(base), out, "--adapter", f"{one}=0.7", "--adapter", f"{two}=-0.3"]
    assert main(command) == 0
    assert_parity(vectors(fmrt.Bundle.open(out)), pytorch(base, [(one, 0.7), (two, -0.3)]))


def test_an_adapter_finds_its_base(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    want = pytorch(base, [(adapter, 1.0)])
    assert_parity(vectors(fmrt.export_model(adapter, tmp_path / "a")), want)
    shutil.copytree(base, adapter / "base")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "base"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert_parity(vectors(fmrt.export_model(adapter, tmp_path / "b")), want)


def test_a_sentence_transformers_adapter(base: Path, tmp_path: Path) -> None:
    if base.name == "llama":
        pytest.skip("one model is enough")
    torch.manual_seed(0)
    with quiet():
        model = SentenceTransformer(str(base), device="cpu")
        model.add_adapter(LoraConfig(r=4, target_modules=TARGETS["bert"]))
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data += torch.randn_like(value) * 0.2
        want = np.stack([model.encode(text) for text in TEXTS])
        model.save_pretrained(str(tmp_path / "adapter"))
    assert not list((tmp_path / "adapter").rglob("model.safetensors"))
    assert_parity(vectors(fmrt.export_model(tmp_path / "adapter", tmp_path / "bundle")), want)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "orthogonal", "gaussian"])
def test_what_an_adapter_takes_out_of_its_base_is_part_of_its_change(
    base: Path, tmp_path: Path, init: str
) -> None:
    """At a weight of nearly 0 nothing is left of it; two of them do not see each other."""
    one = make_adapter(base, tmp_path / "one", 1, init_lora_weights=init)
    two = make_adapter(base, tmp_path / "two", 2, init_lora_weights=init, r=2)
    for weights in ((1e-6,), (0.5,), (0.7, -0.3)):
        pairs = zip((one, two), weights, strict=False)
        files = [AdapterFiles(str(path), path, None, weight) for path, weight in pairs]
        with quiet(), torch.no_grad():
            model = AutoModel.from_pretrained(base).eval()
            ids = torch.arange(8)[None]
            before = model(input_ids=ids).last_hidden_state
        attach(model, files)
        check_against_peft(model, base, files)
        with quiet(), torch.no_grad():
            after = model(input_ids=ids).last_hidden_state
        changed = float((after - before).abs().max())
        assert (changed < 1e-4) == (weights == (1e-6,))
    next(m for m in model.modules() if isinstance(m, LoraLayer)).scaling["adapter_0"] *= 2
    with pytest.raises(ExportError, match="PEFT gives"):
        check_against_peft(model, base, files)


def test_an_adapters_own_tokenizer_is_used(base: Path, tmp_path: Path) -> None:
    """Tokens that the adapter was trained with have rows of the base's table to spare."""
    if base.name == "llama":
        pytest.skip("one model is enough")
    tokenizer = AutoTokenizer.from_pretrained(base)
    roomy = AutoModel.from_config(AutoConfig.from_pretrained(base, vocab_size=len(tokenizer) + 2))
    roomy.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    adapter = make_adapter(tmp_path / "bert", tmp_path / "adapter")
    tokenizer.add_tokens(["productx"])
    tokenizer.save_pretrained(adapter)
    texts = ["buy productx now", "x"]
    with quiet():
        want = SentenceTransformer(str(adapter), device="cpu").encode(texts, batch_size=1)
    bundle = fmrt.export_model(tmp_path / "bert", tmp_path / "bundle", adapter=adapter)
    with fmrt.Embedder(bundle) as embedder:
        assert_parity(embedder.embed(texts), want)
    other = make_adapter(tmp_path / "bert", tmp_path / "other", 2)
    tokenizer.add_tokens(["producty"])
    tokenizer.save_pretrained(other)
    both = [(adapter, 0.5), (other, 0.5)]
    with pytest.raises(ExportError, match="different tokenizers"):
        fmrt.export_model(tmp_path / "bert", tmp_path / "out", adapter=both)


def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    state, stated = load_file(weights), json.loads((adapter / "adapter_config.json").read_text())
    first = next(iter(state))

    def changed(name: str, tensors: dict[str, torch.Tensor] | bytes, **config: Any) -> Path:
        copy = shutil.copytree(adapter, tmp_path / name)
        (copy / "adapter_config.json").write_text(json.dumps({**stated, **config}))
        if isinstance(tensors, bytes):
            (copy / weights.name).write_bytes(tensors)
        else:
            save_file(tensors, copy / weights.name)
        return copy

    less = {key: value for key, value in state.items() if key != first}
    more = {**state, first.replace(".0.", ".77."): state[first].clone()}
    wide = {**state, first: torch.zeros(4, 99)}
    dora = make_adapter(base, tmp_path / "dora", use_dora=True)
    saved = {"modules_to_save": ["embed_tokens"]}
    cases: list[tuple[Any, type[FmrtError], str]] = [
        (changed("less", less), ExportError, "no counterpart"),
        (changed("more", more), ExportError, "does not fit"),
        (changed("wide", wide), ExportError, "does not fit"),
        (changed("none", {}), ExportError, "no weights"),
        (changed("corrupt", b"nothing"), ExportError, "cannot be read"),
        (changed("rank", state, r=10**9), ExportError, "rank 1000000000"),
        (changed("saved", state, **saved), ExportError, "modules_to_save"),
        (changed("bias", state, bias="all"), ExportError, "bias"),
        (changed("other", state, peft_type="IA3"), ExportError, "IA3"),
        (tmp_path, ExportError, "not an adapter"),
        ([(dora, 0.5)], OptionError, "DoRA"),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=message) as e:
            fmrt.export_model(base, tmp_path / "out", adapter=given)
        assert "\n" not in str(e.value)
        assert not (tmp_path / "out").exists()
