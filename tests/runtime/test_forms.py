"""A GPU's kernels of attention: what is wrong is refused, and what is right and fastest is taken.

The GPU is simulated: a provider called ``cuda`` computes on the CPU, wrongly or slowly by the file
of the graph.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import Manifest, Parity, Variant
from fmrt.cli import main
from fmrt.embedding.engine import Engine
from fmrt.embedding.tuning import load_tuning
from fmrt.errors import BundleCorruptError, VerificationError
from fmrt.session.providers import cuda

from .conftest import MAX_LENGTH, TEXTS
from .simulated_gpu import GPU, Fault, Simulated

PLAIN, STANDARD, CONTRIB = "plain", "Attention", "MultiHeadAttention"
# Each is a kind that was seen on a GPU, or may be.
LONG = MAX_LENGTH - 2
FAULTS: dict[str, Fault] = {
    "short keys": lambda lengths, _: lengths <= 3,
    "long keys": lambda lengths, _: lengths >= LONG,
    "padding": lambda lengths, width: lengths < width,
    "much padding": lambda lengths, width: 4 * lengths < width,
    "padding of short texts": lambda lengths, width: (lengths < width) & (width < LONG),
    "one alone": lambda lengths, _: np.full(len(lengths), len(lengths) == 1),
    "one long alone": lambda lengths, width: np.full(len(lengths), len(lengths) == 1) & (width > 9),
    "many": lambda lengths, _: np.full(len(lengths), len(lengths) > 128),
    "the last of many": lambda lengths, _: np.arange(len(lengths)) > 200,
    "many of mixed lengths": lambda lengths, width: (len(lengths) > 32) & (lengths < width),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Simulated:
    simulated = Simulated()
    monkeypatch.setattr(cuda, "PROVIDER", simulated)
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fmrt.measure.calibration.TURN", 0.001)
    return simulated


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A variant for GPUs in three forms: here the same graph under three names."""
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    names = {form: f"onnx/model_fp32_cuda_{form.lower()}.onnx" for form in (STANDARD, CONTRIB)}
    for name in ("onnx/model_fp32_cuda.onnx", *names.values()):
        shutil.copy(place / "onnx/model.onnx", place / name)
    graph = record_of(place / "onnx/model_fp32_cuda.onnx")
    variant = Variant(
        "fp32-cuda",
        "onnx/model_fp32_cuda.onnx",
        "cuda",
        "fp32",
        graph.sha256,
        graph.size,
        parity=Parity(0, 1, 1),
        checked_on="cuda",
        external={name: record_of(place / name) for name in names.values()},
        form=PLAIN,
        forms=names,
    )
    manifest = Manifest.read(place)
    variants = (*manifest.variants, variant)
    dataclasses.replace(manifest, variants=variants).write(place)
    return place


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_does_not_load(fault: str, bundle: Path, gpu: Simulated) -> None:
    gpu.faults["model_fp32_cuda.onnx"] = FAULTS[fault]
    with pytest.raises(VerificationError, match=r"fp32-cuda.* not give PyTorch's.*fmrt tune"):
        fmrt.Embedder(bundle, provider="cuda")


def test_a_right_kernel_loads(bundle: Path, gpu: Simulated) -> None:
    with fmrt.Embedder(bundle, provider="cuda") as a, fmrt.Embedder(bundle) as b:
        assert a.embed(TEXTS, on_too_long="truncate") == pytest.approx(
            b.embed(TEXTS, on_too_long="truncate"), abs=1e-6
        )
    assert gpu.model == GPU


def form_in_use(bundle: Path) -> str | None:
    engine = Engine(fmrt.Bundle.open(bundle), provider="cuda")
    engine.close()
    return engine.variant.form


def test_tune_takes_the_fastest_form_that_is_right(
    bundle: Path, gpu: Simulated, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    gpu.seconds["model_fp32_cuda.onnx"] = 0.01
    gpu.faults["model_fp32_cuda_attention.onnx"] = FAULTS["short keys"]
    assert form_in_use(bundle) == PLAIN
    assert main(["tune", str(bundle), "--provider", "cuda", "--items", "20"]) == 0
    said = capsys.readouterr().out
    assert f"refused {STANDARD}: not PyTorch's vectors" in said
    assert f"best: {CONTRIB}, batches of" in said
    assert form_in_use(bundle) == CONTRIB
    # It was not measured for another GPU, or with another ONNX Runtime.
    gpu.model = "Another GPU"
    assert form_in_use(bundle) == PLAIN
    gpu.model = None
    assert form_in_use(bundle) == PLAIN
    gpu.model = GPU
    monkeypatch.setattr("fmrt.embedding.tuning.runtime_version", lambda: "99.0")
    assert form_in_use(bundle) == PLAIN


def test_what_verify_records_is_the_form_that_it_checked(bundle: Path, gpu: Simulated) -> None:
    gpu.faults["model_fp32_cuda.onnx"] = FAULTS["padding"]
    assert main(["verify", str(bundle), "--provider", "cuda", "--variant", "fp32-cuda"]) == 1
    assert main(["tune", str(bundle), "--provider", "cuda", "--items", "20"]) == 0
    before = form_in_use(bundle)
    assert before in (STANDARD, CONTRIB)
    assert main(["verify", str(bundle), "--provider", "cuda", "--record"]) == 0
    own = fmrt.Bundle.open(bundle).variant("fp32-cuda", "cuda")
    assert own.form == before
    assert set(own.forms) == {PLAIN, STANDARD, CONTRIB} - {before}
    assert form_in_use(bundle) == before
    # A GPU that nobody measured takes it too.
    gpu.model = "Another GPU"
    fmrt.Embedder(bundle, provider="cuda").close()


def test_nothing_is_recorded_where_nothing_is_right(
    bundle: Path, gpu: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("", "_attention", "_multiheadattention"):
        gpu.faults[f"model_fp32_cuda{name}.onnx"] = FAULTS["many"]
    assert main(["tune", str(bundle), "--provider", "cuda", "--items", "20"]) == 1
    assert "nothing of fp32-cuda is right here" in capsys.readouterr().err
    variant = fmrt.Bundle.open(bundle).variant("fp32-cuda", "cuda")
    assert load_tuning(variant, GPU).form is None


def test_a_form_is_a_file_of_the_bundle(bundle: Path, gpu: Simulated) -> None:
    assert gpu.problem() is None
    raw = json.loads((bundle / "fmrt.json").read_text())
    (variant,) = (v for v in raw["variants"] if v["name"] == "fp32-cuda")
    variant["forms"]["other"] = "onnx/other.onnx"
    (bundle / "fmrt.json").write_text(json.dumps(raw))
    with pytest.raises(BundleCorruptError, match=r"forms.*other"):
        fmrt.Bundle.open(bundle)


def test_a_changed_form_is_refused(bundle: Path, gpu: Simulated) -> None:
    assert gpu.problem() is None
    with (bundle / "onnx/model_fp32_cuda_attention.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleCorruptError, match="attention"):
        fmrt.Embedder(bundle, provider="cuda")
