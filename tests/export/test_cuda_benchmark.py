"""The CUDA benchmark runs from end to end without a GPU, and says in a line that there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from benchmarks.scripts import cuda
from fmrt.export.rewrite.cuda_attention import PACKED
from fmrt.session.providers import cuda as provider
from tests.runtime.simulated_gpu import Simulated

TINY = ["--tiny", "--rounds", "1"]


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert cuda.main([*TINY, *arguments, "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["hardware"]["device"]
    assert found["export_on_device"] == "ok"
    assert "skipped" not in found.values()
    return found


@pytest.mark.slow
def test_a_simulated_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right there is tuned, compared with PyTorch and looked into."""
    monkeypatch.setattr(provider, "PROVIDER", Simulated())
    found = run(tmp_path / "cuda.json", "--peer-device", "cpu", "--models", "minilm,dino")
    for model in ("minilm", "dino"):
        assert not any("left out" in line for line in found[f"{model}.export"]["said"])
        variants = found[f"{model}.variants"]
        forms = variants["fp32-cuda"]["forms"]
        # The CPU has no kernel for packed products, nor for bf16.
        assert {form for form, parity in forms.items() if not parity["passed"]} == {PACKED}
        assert not any(p["passed"] for p in variants["bf16-cuda"]["forms"].values())
        assert variants["fp32"]["forms"]["portable"]["passed"]
        assert variants["fp16-cuda"]["nodes"] > 0
        tuned = found[f"{model}.fp16-cuda.tuned"]
        assert list(tuned["refused"]) == [PACKED]
        assert tuned["min_cosine"] > 0.999
        assert tuned["form"] in tuned["speeds"]["form"]
        speed = found[f"{model}.throughput"]
        assert list(speed["compared"]) == ["fp16-cuda"]
        assert speed["compared"]["fp16-cuda"]["ratio"] == speed["ratio"] > 0
        assert speed["matmul_fraction"] > 0
        assert speed["cosine_with_peer"] > 0.999
    stages = found["minilm.breakdown"]
    assert stages["padded"] >= stages["tokens"] > 0
    assert min(v for name, v in stages.items() if name.endswith("_s")) > 0
    assert min(found["minilm.budgets"].values()) > 0
    latency = found["minilm.latency"]
    assert set(latency) == {"peer", *(f"fp16-cuda{s}" for s in ("", "+graphs", "-graphs"))}
    assert min(v["worst_cosine"] for n, v in latency.items() if n != "peer") > 0.999
    assert all(0 < v["p50_ms"] <= v["p99_ms"] for v in latency.values())
    assert found["minilm.invariance"]["worst_cos"] > 0.999


@pytest.mark.slow
def test_a_decoder_on_the_cpu(tmp_path: Path) -> None:
    found = run(tmp_path / "cuda.json", "--provider", "cpu", "--models", "qwen3")
    assert list(found["qwen3.variants"]) == ["fp32", "fp32-cpu"]
    speed = found["qwen3.throughput"]
    assert speed["variant"] == "fp32-cpu"
    assert speed["cosine_with_peer"] > 0.9999


def test_steps_that_fail_or_come_too_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise RuntimeError("no kernel")

    out = tmp_path / "cuda.json"
    steps = cuda.Steps(out, end=float("inf"))
    assert steps.take("a.latency", lambda: {"p50_ms": 1}) == {"p50_ms": 1}
    assert steps.take("b.latency", fails) is None
    steps.end = 0
    assert steps.take("c.latency", fails) is None
    assert json.loads(out.read_text()) == {
        "a.latency": {"p50_ms": 1},
        "b.latency": {"error": "RuntimeError: no kernel"},
        "c.latency": "skipped",
    }
    assert steps.failed == ["b.latency"]
    assert "no kernel" in capsys.readouterr().err


def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    out = tmp_path / "cuda.json"
    assert cuda.main(["--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("benchmarks.scripts.cuda: provider 'cuda' cannot be had")
    assert said.count("\n") == 1
    assert not out.exists()
