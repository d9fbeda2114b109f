"""benchmarks/cuda.py runs from end to end on the CPU, and says in a line that there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest

from benchmarks import cuda


@pytest.mark.slow
def test_tiny_models_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "cuda.json"
    assert cuda.main(["--provider", "cpu", "--tiny", "--rounds", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["hardware"]["device"]
    assert found["export_on_device"] == "ok"
    for model in found["models"].values():
        assert all(v["passed"] and not v["fallback_nodes"] for v in model["variants"].values())
        assert model["cosine_with_peer"] > 0.9999
        assert model["ratio"] > 0
        assert model["matmul_fraction"] > 0


def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    out = tmp_path / "cuda.json"
    assert cuda.main(["--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("benchmarks.cuda: provider 'cuda' cannot be had")
    assert said.count("\n") == 1
    assert not out.exists()
