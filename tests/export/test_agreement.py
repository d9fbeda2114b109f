"""w8 has the same vectors on processors of other kinds and in WebAssembly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import fmrt
from tests.agreement.aarch64 import aarch64
from tests.agreement.machines import Python, UnavailableError, fewer_instructions, webassembly
from tests.agreement.texts import token_ids
from tests.export.models import TINY, save_tiny

pytestmark = pytest.mark.slow

SAME = 1e-5
# Texts at full speed, in WebAssembly, and emulated; the last ones have few tokens.
MANY, SOME, FEW, SHORT = 200, 60, 8, 12
BATCH = 8
MACHINES = {
    "AVX2 without VNNI": (fewer_instructions("avx2", "Haswell"), True),
    "neither AVX nor FMA": (fewer_instructions("sse", "Nehalem"), False),
    "aarch64": (aarch64, False),
}
# Sums of 16 bits, of which AVX2 has two products in each, are too small for these.
SATURATES = """
import numpy as np, onnxruntime as ort, sys
options = ort.SessionOptions()
options.log_severity_level = 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(sums,) = session.run(None, {"x": np.full((4, 64), 255, np.uint8)})
print(int((sums != 255 * 127 * 64).any()))
"""
# Rounds activations, by itself or after ONNX Runtime's optimizations.
ROUNDS = ("Quantize", "Integer", "QGemm", "QLinear", "QAttention", "MatMulNBits", "Round")


@pytest.fixture(scope="module")
def small(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph w8 of all-MiniLM-L6-v2."""
    return graph(minilm, tmp_path_factory.mktemp("w8") / "bundle")


def graph(bundle: Path, out: Path, min_cosine: float = 0.999) -> Path:
    made = fmrt.quantize_bundle(bundle, "w8", out=out, min_cosine=min_cosine)
    return made.path / made.variant("w8").file


def started(make: Callable[[], Python]) -> Python:
    try:
        return make()
    except UnavailableError as e:
        pytest.skip(str(e))


@pytest.mark.parametrize("machine", MACHINES)
def test_processors_agree(machine: str, small: Path) -> None:
    there = started(MACHINES[machine][0])
    ids = token_ids(small.parents[1], MANY)
    if there.slow:
        ids = [row for row in ids if len(row) <= SHORT][:FEW]
    here = Python().vectors(small, ids)
    assert np.abs(here).max() > 0.1
    assert np.abs(here - there.vectors(small, ids)).max() <= SAME
    if not there.slow:
        assert np.abs(here - there.vectors(small, ids, BATCH)).max() <= SAME


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_lacks_what_its_name_says(machine: str, tmp_path: Path) -> None:
    make, saturates = MACHINES[machine]
    weight = onnx.numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
    product = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [None, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [None, 16])],
        [weight],
    )
    opsets = [onnx.helper.make_opsetid("", 21)]
    onnx.save(onnx.helper.make_model(product, opset_imports=opsets, ir_version=10), tmp_path / "m")
    assert int(started(make).run("-c", SATURATES, str(tmp_path / "m"))) == saturates


def test_nothing_rounds_an_activation(tmp_path: Path) -> None:
    model = save_tiny(next(t for t in TINY if t.model_type == "bert"), tmp_path / "model")
    tiny = graph(fmrt.export_model(model, tmp_path / "bundle").path, tmp_path / "w8", 0.9)
    for level in ("DISABLE_ALL", "BASIC", "EXTENDED", "ALL"):
        options = ort.SessionOptions()
        name = level if level == "DISABLE_ALL" else f"ENABLE_{level}"
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{name}")
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(tiny, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        assert not [n.op_type for n in nodes if any(word in n.op_type for word in ROUNDS)]


def test_webassembly_agrees(small: Path) -> None:
    ids = token_ids(small.parents[1], SOME)
    try:
        there = webassembly(small, ids)
    except UnavailableError as e:
        pytest.skip(str(e))
    assert np.abs(Python().vectors(small, ids) - there).max() <= SAME
