"""The files of the real tools, made in an environment of their own, become bundles."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

import fmrt
from dev import ROOT, python
from fmrt.errors import ExportError
from tests.export.models import MINILM
from tests.wheel.environments import link, required, site_packages

pytestmark = pytest.mark.slow

TOOLS = ("optimum-onnx==0.1.0", "transformers==4.57.*", "sentence-transformers>=5.2,<6")
# These have another version there; all else is this environment's, torch above all.
OTHERS = {"transformers", "huggingface_hub", "tokenizers", "sentence-transformers"}
SHARED = (
    *("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "safetensors", "shtab"),
    *("accelerate", "scikit-learn", "sentencepiece"),
)
TEXTS = ["a short text", "How do I reset my password?", "日本語の文章", "words " * 300]
LAYOUTS = ("optimum/plain", "sentence-transformers", "transformers.js", "fastembed")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that is held at transformers 4, with fmrt in it."""
    place = tmp_path_factory.mktemp("tools")
    environment = place / "environment"
    venv.create(environment, with_pip=False)
    for found in required(SHARED):
        if found.name not in OTHERS:
            link(found, site_packages(environment))
    link(distribution("peft"), site_packages(environment))
    pip = (python(), "-m", "pip", "--python", python(environment), "install", "--quiet")
    (place / "torch.txt").write_text("torch==2.13.0\n")
    subprocess.run([*pip, "--constraint", place / "torch.txt", *TOOLS], check=True)
    subprocess.run([*pip, "--no-deps", ROOT], check=True)
    return environment


@pytest.fixture(scope="module")
def files(environment: Path) -> Path:
    script = Path(__file__).with_name("other_tools.py")
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    out = environment.with_name("files")
    command = [python(environment), str(script), str(MINILM), str(out)]
    subprocess.run(command, check=True, env=settings)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_becomes_a_verified_bundle(
    layout: str, files: Path, minilm: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    bundle = fmrt.adopt_onnx(files / layout, tmp_path / "out", model=MINILM, report=said.append)
    with fmrt.Embedder(minilm) as want, fmrt.Embedder(bundle) as got:
        vectors = [e.embed(TEXTS, on_too_long="truncate") for e in (want, got)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    assert bundle.manifest.reference == "pytorch"
    for variant in bundle.manifest.variants:
        assert variant.parity is not None
        if variant.precision == "int4":  # so near its tolerance that a load's few texts may miss it
            continue
        with fmrt.Embedder(bundle, variant=variant.name) as embedder:
            together = embedder.embed(TEXTS, on_too_long="truncate")
            alone = [embedder.embed([text], on_too_long="truncate")[0] for text in TEXTS]
        bound = 1e-5 if variant.precision == "fp32" or variant.alone else 1e-2
        assert np.abs(together - np.stack(alone)).max() <= bound, variant.name


def test_dynamic_int8_shows_its_parity_and_that_vectors_depend_on_the_batch(
    files: Path, tmp_path: Path
) -> None:
    for place in ("optimum/quantized", "sentence-transformers"):
        said: list[str] = []
        out = tmp_path / place.replace("/", "-")
        bundle = fmrt.adopt_onnx(files / place, out, model=MINILM, report=said.append)
        (variant,) = (v for v in bundle.manifest.variants if v.precision.startswith("int8"))
        assert variant.alone
        assert variant.parity is not None
        assert any("depends on the others of its batch, by up to" in line for line in said)


def test_optimized_graphs_are_verified(files: Path, tmp_path: Path) -> None:
    bundle = fmrt.adopt_onnx(files / "optimum" / "optimized", tmp_path / "out", model=MINILM)
    (variant,) = (v for v in bundle.manifest.variants if v.name == "optimized")
    assert variant.provider == "cpu"
    assert variant.parity is not None


def test_a_cache_of_several_models_asks_for_one(files: Path, tmp_path: Path) -> None:
    for name in ("models--a--b", "models--a--c"):
        (tmp_path / "cache" / name / "snapshots" / "1").mkdir(parents=True)
    with pytest.raises(ExportError, match="holds 2 models; give one of them"):
        fmrt.adopt_onnx(tmp_path / "cache", tmp_path / "out")


def test_both_exporters_give_the_same_vectors(
    environment: Path, minilm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python(environment), "-m", "fmrt", "export", str(MINILM), str(out)]
    done = subprocess.run(
        command, check=True, env=settings, cwd=tmp_path, capture_output=True, text=True
    )
    assert "converting to ONNX through optimum-onnx 0.1.0" in done.stdout
    assert fmrt.Bundle.open(out).manifest.packages["optimum-onnx"] == "0.1.0"
    with fmrt.Embedder(minilm) as want, fmrt.Embedder(out) as got:
        vectors = [e.embed(TEXTS, on_too_long="truncate") for e in (want, got)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5
