"""``--cuda`` adds half-precision variants, measured as far as a machine without a GPU can."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

import fmrt
from fmrt.export.precision import full_precision
from fmrt.export.rewrite.half import ANGLES, to_half
from tests.export.models import TINY, save_tiny

NO_GPU = "CUDAExecutionProvider" not in ort.get_available_providers()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> fmrt.Bundle:
    directory = tmp_path_factory.mktemp("cuda")
    model = save_tiny(next(t for t in TINY if t.model_type == "bert"), directory / "model")
    said: list[str] = []
    found = fmrt.export_model(model, directory / "bundle", cuda=True, report=said.append)
    for name in ("bf16-cuda", "fp16-cuda-packed") if NO_GPU else ():
        assert any(f"kept {name} unmeasured, as the CPU cannot run it" in line for line in said)
    return found


def test_variants_say_where_they_were_measured(bundle: fmrt.Bundle) -> None:
    found = {v.name: v for v in bundle.manifest.variants}
    half = found["fp16-cuda"]
    assert (half.file, half.provider) == ("onnx/model_fp16_cuda.onnx", "cuda")
    assert half.parity is not None
    assert half.parity.min_cosine > 0.9999
    if NO_GPU:
        assert half.checked_on == "cpu"
        for name in ("bf16-cuda", "fp16-cuda-packed"):
            assert (found[name].parity, found[name].checked_on) == (None, None)
    packed = found["fp16-cuda-packed"]
    assert (packed.file, packed.provider) == ("onnx/model_fp16_cuda_packed.onnx", "cuda")
    assert [v.name for v in found.values() if v.packed] == ["fp16-cuda-packed"]
    assert half.size < 0.8 * found["fp32"].size


def test_a_gpu_takes_fp16_once_it_was_measured(bundle: fmrt.Bundle) -> None:
    assert bundle.variant(provider="cuda").name == "fp16-cuda"
    unmeasured = tuple(replace(v, parity=None) for v in bundle.manifest.variants)
    other = fmrt.Bundle(bundle.path, replace(bundle.manifest, variants=unmeasured))
    assert other.variant(provider="cuda").name == "fp32-cuda"
    assert bundle.variant(provider="cpu").name == "fp32-cpu"
    assert bundle.variant(provider="tensorrt").name == "fp32"
    assert bundle.variant("bf16-cuda", "cuda").precision == "bf16"


def test_the_head_angles_and_borders_stay_single(bundle: fmrt.Bundle) -> None:
    single, half = (ir.load(bundle.path / f"onnx/model{s}.onnx") for s in ("", "_fp16_cuda"))
    assert [(v.name, v.dtype) for v in half.graph.inputs] == [
        (v.name, v.dtype) for v in single.graph.inputs
    ]
    assert {v.dtype for v in half.graph.outputs} == {ir.DataType.FLOAT}
    matrices = [v for v in half.graph.initializers.values() if len(v.shape) == 2]
    weights = [v for v in matrices if v.dtype != ir.DataType.INT64]
    assert {v.dtype for v in weights} == {ir.DataType.FLOAT16}
    pooling = [n for n in half.graph if n.op_type in ("ReduceSum", "Clip", "Div")]
    types = {node.inputs[0].dtype for node in pooling} - {ir.DataType.INT32}
    assert types == {ir.DataType.FLOAT}, "pooling counts, adds up and divides in fp32"


def test_bf16_is_fp16_with_another_type(bundle: fmrt.Bundle) -> None:
    a, b = (ir.load(bundle.path / f"onnx/model_{p}_cuda.onnx") for p in ("fp16", "bf16"))
    assert [n.op_type for n in a.graph] == [n.op_type for n in b.graph]
    types = {ir.DataType.FLOAT16: ir.DataType.BFLOAT16}
    for x, y in zip(a.graph.initializers.values(), b.graph.initializers.values(), strict=True):
        assert types.get(x.dtype, x.dtype) == y.dtype


def assert_packed_is_fp16(bundle: fmrt.Bundle) -> None:
    paths = (bundle.path / f"onnx/model_fp16_cuda{s}.onnx" for s in ("", "_packed"))
    padded, packed = map(ir.load, paths)
    operators = {node.op_type for node in packed.graph} - {node.op_type for node in padded.graph}
    assert operators >= {"RemovePadding", "PackedMultiHeadAttention", "RestorePadding"}
    own, theirs = (model.graph.initializers for model in (packed, padded))
    assert set(own) <= set(theirs)
    for name, value in own.items():
        assert value.const_value.tobytes() == theirs[name].const_value.tobytes()


def test_packed_is_fp16_without_its_padding(bundle: fmrt.Bundle) -> None:
    assert_packed_is_fp16(bundle)


def test_packed_is_made_again_with_fp16(bundle: fmrt.Bundle, tmp_path: Path) -> None:
    """And is as unmeasured as it was at first."""
    copy = fmrt.Bundle.open(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (half,) = (v for v in copy.manifest.variants if v.name == "fp16-cuda")
    measured = tuple(
        replace(v, parity=half.parity, checked_on="cuda") if v.packed else v
        for v in copy.manifest.variants
    )
    replace(copy.manifest, variants=measured).write(copy.path)
    assert fmrt.Bundle.open(copy.path).variant(provider="cuda").packed
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"one cat number {i}" for i in range(48)))
    made = fmrt.quantize_bundle(copy.path, ["fp16"], calibration=texts)
    (packed,) = (v for v in made.manifest.variants if v.packed)
    assert packed.parity is None
    assert made.variant(provider="cuda").name == "fp16-cuda"
    assert made.graph(packed)
    assert_packed_is_fp16(made)


def test_positions_and_minus_infinity_survive() -> None:
    """An angle of position 2,047 has no exact half, and fp32's lowest number has none at all."""
    positions = ir.val("positions", dtype=ir.DataType.FLOAT, shape=["n"])
    constants = {
        name: ir.val(name, const_value=ir.tensor(np.array(value, np.float32), name=name))
        for name, value in {"frequency": 0.37, "lowest": -3.4e38, "zero": 0.0}.items()
    }
    angle = ir.node("Mul", [positions, constants["frequency"]])
    wave = ir.node("Sin", angle.outputs)
    low = ir.node("Add", [wave.outputs[0], constants["lowest"]])
    last = ir.node("Max", [low.outputs[0], constants["lowest"]])
    last.outputs[0].name = "low"
    scaled = ir.node("Add", [wave.outputs[0], constants["zero"]])
    scaled.outputs[0].name = "wave"
    nodes = [angle, wave, low, last, scaled]
    graph = ir.Graph(
        [positions],
        [last.outputs[0], scaled.outputs[0]],
        nodes=nodes,
        initializers=list(constants.values()),
        opset_imports={"": 20},
    )
    for node in nodes:
        node.outputs[0].dtype = ir.DataType.FLOAT
    model = ir.Model(graph, ir_version=10)
    to_half(model, "fp16")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.array([2047, 1023], np.float32)
    got_low, got_wave = session.run(None, {"positions": x})
    assert np.abs(got_wave - np.sin(x * np.float32(0.37))).max() < 1e-3
    assert np.isfinite(got_low).all()


def test_fp16_of_a_finished_bundle_keeps_angles_single(tmp_path: Path) -> None:
    model = save_tiny(next(t for t in TINY if t.model_type == "llama"), tmp_path / "model")
    exported = fmrt.export_model(model, tmp_path / "bundle", cuda=True)
    assert not any(v.packed for v in exported.manifest.variants), "its attention is causal"
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"one cat number {i}" for i in range(48)))
    fmrt.quantize_bundle(tmp_path / "bundle", ["fp16"], calibration=texts)
    graph = ir.load(tmp_path / "bundle/onnx/model_fp16_cuda.onnx").graph
    angles = [node for node in graph if node.op_type in ANGLES]
    assert {node.op_type for node in angles} == ANGLES
    assert {node.inputs[0].dtype for node in angles} == {ir.DataType.FLOAT}
    weights = [v for v in graph.initializers.values() if v.const_value.size > 1024]
    assert {v.dtype for v in weights} == {ir.DataType.FLOAT16}


def test_tf32_is_off_during_an_export() -> None:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    with full_precision():
        assert (matmul.allow_tf32, conv.allow_tf32) == (False, False)
    assert (matmul.allow_tf32, conv.allow_tf32) == before
