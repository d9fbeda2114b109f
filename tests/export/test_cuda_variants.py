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
from fmrt.embedding.tuning import load_tuning
from fmrt.errors import ProviderError
from fmrt.export import verification
from fmrt.export.precision import full_precision
from fmrt.export.rewrite.cuda_attention import CONTRIB, PACKED, PLAIN, STANDARD
from fmrt.export.rewrite.half import ANGLES, to_half
from fmrt.session.creation import session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.providers import CPU, cuda
from fmrt.session.providers.cuda import Cuda
from tests.export.models import TINY, save_tiny

NO_GPU = "CUDAExecutionProvider" not in ort.get_available_providers()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> fmrt.Bundle:
    directory = tmp_path_factory.mktemp("cuda")
    model = save_tiny(next(t for t in TINY if t.model_type == "bert"), directory / "model")
    said: list[str] = []
    found = fmrt.export_model(model, directory / "bundle", cuda=True, report=said.append)
    if NO_GPU:
        assert any("kept bf16-cuda unmeasured, as the CPU cannot run it" in line for line in said)
    return found


def test_variants_say_where_they_were_measured(bundle: fmrt.Bundle) -> None:
    found = {v.name: v for v in bundle.manifest.variants}
    half = found["fp16-cuda"]
    assert (half.file, half.provider) == ("onnx/model_fp16_cuda.onnx", "cuda")
    assert half.parity is not None
    assert half.parity.min_cosine > 0.9999
    if NO_GPU:
        assert half.checked_on == "cpu"
        assert (found["bf16-cuda"].parity, found["bf16-cuda"].checked_on) == (None, None)


def test_forms_of_attention_share_their_weights(bundle: fmrt.Bundle) -> None:
    found = {v.name: v for v in bundle.manifest.variants}
    for name, bits in (("fp32-cuda", 32), ("fp16-cuda", 16), ("bf16-cuda", 16)):
        variant = found[name]
        assert {variant.form, *variant.forms} == {PLAIN, STANDARD, CONTRIB, PACKED}
        weights = sum(r.size for f, r in variant.external.items() if f.endswith("_data"))
        assert weights < 1.1 * found["fp32"].size * bits / 32
        for form in variant.forms:
            tried = variant.in_form(form)
            assert tried.size + variant.size < weights / 10, "a graph, and no weights"
            assert tried.in_form(variant.form) == variant
    # Those of fp32 give the same vectors on the CPU.
    free = [replace(found["fp32-cuda"].in_form(f), provider="any") for f in (STANDARD, CONTRIB)]
    for variant in free:
        alone = fmrt.Bundle(bundle.path, replace(bundle.manifest, variants=(variant,)))
        (report,) = fmrt.verify_bundle(alone)
        assert report.passed


class OnCpu(Cuda):
    """A GPU on which one form is wrong, and one does not run."""

    def problem(self) -> None:
        """It is there."""

    def device_names(self) -> list[str]:
        return ["cuda:0"]

    def device_model(self, _: int) -> str:
        return "Simulated GPU"

    def open(self, path: Path, output: str, *_: object) -> DeviceSession:
        if "plain" in path.name:
            raise ProviderError("no such kernel")
        session = DeviceSession(CPU.start(path, session_options()), output, Device("cpu", 0))
        run = session.run
        if "multihead" in path.name or path.name == "model_fp16_cuda.onnx":
            session.run = lambda feeds: run(feeds) + (feeds["attention_mask"].size < 20)
        return session


@pytest.mark.slow
def test_an_export_on_a_gpu_takes_what_is_right_there(
    bundle: fmrt.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "PROVIDER", OnCpu("cuda", "CPUExecutionProvider", ""))
    monkeypatch.setattr(verification, "SAMPLE", 8)
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.path, copy)
    said: list[str] = []
    found = verification.verified(fmrt.Bundle(copy, bundle.manifest), said.append)
    half = next(v for v in found.variants if v.name == "fp16-cuda")
    assert (half.form, half.checked_on) == (STANDARD, "cuda")
    assert set(half.forms) == {PLAIN, CONTRIB, PACKED}
    assert any(f"fp16-cuda with {PLAIN}: no such kernel" in line for line in said)
    assert any(f"fp16-cuda with {CONTRIB}: not PyTorch's vectors" in line for line in said)
    assert load_tuning(half, "Simulated GPU").form == STANDARD
    # Nothing computes in bf16 here.
    assert any("left out bf16-cuda: no form of attention is right here" in line for line in said)
    assert not list((copy / "onnx").glob("*bf16*"))


def test_a_gpu_takes_fp16_once_it_was_measured(bundle: fmrt.Bundle) -> None:
    assert bundle.variant(provider="cuda").name == "fp16-cuda"
    unmeasured = tuple(replace(v, parity=None) for v in bundle.manifest.variants)
    other = fmrt.Bundle(bundle.path, replace(bundle.manifest, variants=unmeasured))
    assert other.variant(provider="cuda").name == ("fp32" if NO_GPU else "fp32-cuda")
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
    found = {v.name: v for v in bundle.manifest.variants}
    for form in (PLAIN, STANDARD, CONTRIB):
        files = [found[f"{p}-cuda"].in_form(form).file for p in ("fp16", "bf16")]
        graphs = [ir.load(bundle.path / file).graph for file in files]
        types = {ir.DataType.FLOAT16: ir.DataType.BFLOAT16}
        weights = [
            {name: v.dtype for name, v in graph.initializers.items() if v.const_value.size > 1}
            for graph in graphs
        ]
        assert weights[1] == {name: types.get(d, d) for name, d in weights[0].items()}


@pytest.mark.parametrize("operator", ["Conv", "GlobalAveragePool", "Softplus", "Erf"])
def test_what_bf16_has_no_operator_for_is_computed_in_fp32(operator: str) -> None:
    """The standard of opset 18 has none, or ONNX Runtime no kernel."""
    image = ir.val("image", dtype=ir.DataType.FLOAT, shape=["n", 3, 8, 8])
    filters = np.ones((4, 3, 2, 2), np.float32)
    weight = ir.val("weight", const_value=ir.tensor(filters, name="weight"))
    node = ir.node(operator, [image, weight] if operator == "Conv" else [image])
    relu = ir.node("Relu", node.outputs)
    relu.outputs[0].name = "y"
    last = ir.node("Abs", relu.outputs)
    for each in (node, relu, last):
        each.outputs[0].dtype = ir.DataType.FLOAT
    graph = ir.Graph(
        [image],
        last.outputs,
        nodes=[node, relu, last],
        initializers=[weight],
        opset_imports={"": 20},
    )
    whole = ir.DataType.BFLOAT16 if operator == "Erf" else ir.DataType.FLOAT
    for precision, kept in (("fp16", ir.DataType.FLOAT16), ("bf16", whole)):
        model = ir.Model(graph, ir_version=10).clone()
        to_half(model, precision)
        (found,) = (each for each in model.graph if each.op_type == operator)
        assert {value.dtype for value in found.inputs} == {kept}


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
    fmrt.export_model(model, tmp_path / "bundle", cuda=True)
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
