"""Bundles that are damaged, newer, or wrong are refused; unknown keys are not."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import fmrt
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import Manifest, Parity, Variant
from fmrt.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    OptionError,
    ProviderError,
    SchemaVersionError,
    VariantNotFoundError,
    VerificationError,
)
from fmrt.verify import measure, passes, tolerance_of

GRAPH = "onnx/model.onnx"
REFERENCE = "reference.safetensors"
COARSE = ["int4", "int8-dynamic", "int8", "fp16"]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit(bundle: Path, change) -> None:
    path = bundle / "fmrt.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def flip(path: Path) -> None:
    """Another byte in the middle: same size, other content."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "no manifest": (lambda b: (b / "fmrt.json").unlink(), BundleNotFoundError, "fmrt export"),
    "not JSON": (lambda b: (b / "fmrt.json").write_text("{"), BundleCorruptError, "JSON"),
    "a list": (lambda b: (b / "fmrt.json").write_text("[]"), BundleCorruptError, "object"),
    "no version": (
        lambda b: edit(b, lambda m: m.pop("schema_version")),
        BundleCorruptError,
        "schema_version",
    ),
    "no dim": (lambda b: edit(b, lambda m: m.pop("dim")), BundleCorruptError, "dim"),
    "newer": (
        lambda b: edit(b, lambda m: m.update(schema_version=999)),
        SchemaVersionError,
        "upgrade",
    ),
    "no graph": (lambda b: (b / GRAPH).unlink(), BundleCorruptError, "missing"),
    "short graph": (lambda b: (b / GRAPH).write_bytes(b"x"), BundleCorruptError, "1 bytes"),
    "changed graph": (lambda b: flip(b / GRAPH), BundleCorruptError, "SHA-256"),
    "no tokenizer": (
        lambda b: (b / "tokenizer.json").unlink(),
        BundleCorruptError,
        "tokenizer.json is missing",
    ),
    "changed tokenizer": (lambda b: flip(b / "tokenizer.json"), BundleCorruptError, "SHA-256"),
    "changed reference": (lambda b: flip(b / REFERENCE), BundleCorruptError, "SHA-256"),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_bundle_is_refused(bundle, damage, error, message) -> None:
    damage(bundle)
    with pytest.raises(error, match=message) as e:
        fmrt.Embedder(bundle)
    assert "\n" not in str(e.value)


def test_a_graph_that_onnxruntime_cannot_read_is_refused(bundle) -> None:
    (bundle / GRAPH).write_bytes(b"not a graph")
    record = record_of(bundle / GRAPH)
    edit(bundle, lambda m: m["variants"][0].update(sha256=record.sha256, size=record.size))
    with pytest.raises(
        BundleCorruptError, match=r"model.onnx is no graph: .*; copy the bundle again"
    ):
        fmrt.Embedder(bundle)


def test_unknown_keys_are_ignored(bundle) -> None:
    def add(manifest) -> None:
        manifest["of_the_future"] = {"a": 1}
        manifest["source"]["more"] = 1
        manifest["variants"][0]["more"] = 1

    edit(bundle, add)
    with fmrt.Embedder(bundle) as embedder:
        assert embedder.embed(["cat"]).shape == (1, embedder.dim)


def test_wrong_vectors_are_refused_at_load(bundle) -> None:
    with safe_open(bundle / REFERENCE, framework="np") as f:
        metadata = f.metadata()
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    tensors["text.embeddings"] = np.roll(tensors["text.embeddings"], 1, axis=1)
    save_file(tensors, bundle / REFERENCE, metadata)
    record = record_of(bundle / REFERENCE)
    edit(bundle, lambda m: m["files"][REFERENCE].update(sha256=record.sha256, size=record.size))
    with pytest.raises(VerificationError, match="does not give PyTorch's vectors"):
        fmrt.Embedder(bundle)
    fmrt.Embedder(bundle, verify=False).close()
    assert not any(report.passed for report in fmrt.verify_bundle(fmrt.Bundle.open(bundle)))


@given(seed=st.integers(0, 1 << 20), noise=st.floats(0, 0.5), precision=st.sampled_from(COARSE))
def test_no_part_of_what_passed_is_refused_by_the_tolerance_that_was_recorded(
    seed: int, noise: float, precision: str
) -> None:
    rng = np.random.default_rng(seed)
    expected = rng.normal(size=(12, 16)).astype(np.float32)
    scales = rng.uniform(0, noise, (12, 1)) * rng.integers(0, 2, (12, 1))
    got = expected + (scales * rng.normal(size=expected.shape)).astype(np.float32)
    variant = Variant("q", GRAPH, "any", precision, "0" * 64, 1)
    parity = measure(got, expected)
    assume(passes(parity, variant, expected))
    own = replace(variant, tolerance=tolerance_of(parity, precision, expected))
    assert passes(parity, own, expected)
    for count in (1, 2, 5):
        rows = rng.choice(12, count, replace=False)
        assert passes(measure(got[rows], expected[rows]), own, expected[rows], some=True)
    assert not passes(measure(-got, expected), own, expected)
    # Of a quantized variant: whatever passes, and what is on the edge of that on another machine.
    wide = replace(own, tolerance=tolerance_of(parity, precision, expected, narrowed=False))
    elsewhere = replace(parity, max_abs_error=1.4 * parity.max_abs_error)
    assert passes(parity, wide, expected)
    assert passes(elsewhere, wide, expected)


def test_a_tolerance_that_no_adoption_records_is_refused(bundle) -> None:
    wide = {"max_abs_error": 9.0, "mean_cosine": 0.99999, "min_cosine": -1.0}
    edit(bundle, lambda m: m["variants"][0].update(tolerance=wide))
    with pytest.raises(BundleCorruptError, match=r"tolerance min_cosine -1\.0.*fp32 has 0\.99985"):
        fmrt.Embedder(bundle)


def test_variant_and_provider_must_exist(bundle) -> None:
    with pytest.raises(VariantNotFoundError, match="it has: fp32"):
        fmrt.Embedder(bundle, variant="int2")
    with pytest.raises(ProviderError, match="choose from: auto, cpu, cuda"):
        fmrt.Embedder(bundle, provider="abacus")
    with fmrt.Embedder(bundle, provider="auto") as embedder:
        assert (embedder.variant, embedder.provider) == ("fp32", "cpu")


def test_the_cuda_provider_says_how_to_get_it(bundle) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ProviderError, match=r"pip install .*onnxruntime-gpu"):
        fmrt.Embedder(bundle, provider="cuda")


def test_a_gpu_takes_what_is_proven_and_a_packed_variant_last(bundle) -> None:
    opened = fmrt.Bundle.open(bundle)
    (fp32,) = opened.manifest.variants
    parity = Parity(1e-4, 1.0, 1.0)
    half = replace(fp32, provider="cuda", precision="fp16", parity=parity, checked_on="cuda")
    padded = replace(half, name="fp16-cuda")
    packed = replace(half, name="fp16-cuda-packed", packed=True)
    own = replace(fp32, name="fp32-cuda", provider="cuda", parity=parity, checked_on="cpu")

    def chosen(*variants: Variant, name: str | None = None, provider: str = "cuda") -> str:
        manifest = replace(opened.manifest, variants=variants)
        manifest.write(bundle)
        assert Manifest.read(bundle) == manifest
        return fmrt.Bundle.open(bundle).variant(name, provider).name

    # fmrt quantize puts the variant that it makes again last.
    for first, second in itertools.permutations((padded, packed)):
        assert chosen(fp32, first, second) == "fp16-cuda"
        assert chosen(fp32, first, second, name="fp16") == "fp16-cuda"
        assert chosen(fp32, first, second, name="fp16-cuda-packed") == "fp16-cuda-packed"
        assert chosen(fp32, first, second, provider="cpu") == "fp32"
    unmeasured = replace(padded, parity=None, checked_on=None)
    assert chosen(fp32, unmeasured) == "fp32"
    # A graph for GPUs that only a CPU has checked comes after the portable one.
    for first, second in itertools.permutations((fp32, own)):
        assert chosen(first, second) == "fp32"
    assert chosen(fp32, replace(own, checked_on="cuda")) == "fp32-cuda"


def test_cuda_graphs_of_a_packed_variant_are_refused(bundle) -> None:
    edit(bundle, lambda m: m["variants"][0].update(packed=True, name="fp32-packed"))
    with pytest.raises(OptionError, match=r"CUDA graphs .* choose variant fp32, or no CUDA graphs"):
        fmrt.Embedder(bundle, cuda_graphs=True)
    fmrt.Embedder(bundle).close()
