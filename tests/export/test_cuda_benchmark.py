"""The CUDA benchmark runs from end to end on the CPU, and says in a line that there is no GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

import fmrt
from benchmarks.scripts import cuda


@pytest.mark.slow
def test_tiny_models_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "cuda.json"
    assert cuda.main(["--provider", "cpu", "--tiny", "--rounds", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["hardware"]["device"]
    assert found["export_on_device"] == "ok"
    for model in found["models"].values():
        runnable = {n: v for n, v in model["variants"].items() if "error" not in v}
        assert list(runnable) == ["fp32", "fp32-cpu"]
        assert not any("fp16" in line for line in model["left_out"])
        assert all(v["passed"] and not v["fallback_nodes"] for v in runnable.values())
        others = {n: v for n, v in model["variants"].items() if n not in runnable}
        assert {v["error"] for v in others.values()} == {"not runnable on cpu: made for cuda"}
        assert not any(v["passed"] for v in others.values())
        assert model["variant"] == "fp32-cpu"
        assert model["compared"]["fp32-cpu"]["ratio"] == model["ratio"]
        assert model["cosine_with_peer"] > 0.9999
        assert model["ratio"] > 0
        assert model["matmul_fraction"] > 0


@pytest.mark.slow
def test_the_packed_variant_is_measured_beside_the_padded_one(tmp_path: Path) -> None:
    """On a GPU; here with graphs of the CPU under their names."""
    setting = cuda.Setting("cpu", "cpu", torch.float32, tiny=True, rounds=1)
    model = cuda.bert_base(tmp_path / "model", setting)
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    (fused,) = (v for v in bundle.manifest.variants if v.provider == "cpu")
    packed = replace(fused, name="fp32-cpu-packed", packed=True)
    variants = (*bundle.manifest.variants, packed)
    bundle = fmrt.Bundle(bundle.path, replace(bundle.manifest, variants=variants))
    measured = cuda.measured_variants(bundle, setting)
    assert list(measured) == ["fp32", "fp32-cpu", "fp32-cpu-packed"]
    twins = cuda.comparable(bundle, setting, measured)
    assert twins == ["fp32-cpu", "fp32-cpu-packed"]
    found = cuda.run_texts(model, bundle, twins, 1e12, setting)
    assert list(found["compared"]) == twins
    best = max(twins, key=lambda name: found["compared"][name]["ratio"])
    assert found["variant"] == best
    assert found["tokens_per_second"] == found["compared"][best]["tokens_per_second"]
    assert min(v["cosine_with_peer"] for v in found["compared"].values()) > 0.9999
    wrong = measured | {"fp32-cpu-packed": {"passed": False, "error": "no kernel"}}
    assert cuda.comparable(bundle, setting, wrong) == ["fp32-cpu"]
    neither = wrong | {"fp32-cpu": {"passed": False}}
    assert cuda.comparable(bundle, setting, neither) == ["fp32"]


def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    out = tmp_path / "cuda.json"
    assert cuda.main(["--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("benchmarks.scripts.cuda: provider 'cuda' cannot be had")
    assert said.count("\n") == 1
    assert not out.exists()
