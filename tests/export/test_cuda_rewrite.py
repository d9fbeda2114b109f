"""The passes of the CUDA variants apply where they should; on the CPU their vectors are the same.

ONNX Runtime has every operator that they use on the CPU as well.
"""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fmrt.export.load import load_model
from fmrt.export.rewrite import graphs_for_cuda
from fmrt.export.rewrite.cuda_attention import CONTRIB, PACKED, PLAIN, STANDARD, take_apart
from fmrt.export.rewrite.graph.masks import Masking, masking_of
from fmrt.export.rewrite.half import to_half
from fmrt.export.text.source import Overrides
from fmrt.export.trace import trace
from tests.export.models import TINY, save_tiny
from tests.export.vision import VISION, save_vision

# Two layers each. How their attention is masked: a key length a text, an attribute, a bias.
PADDED, CAUSAL, BIASED, BARE = "key lengths", "causal", "bias", "no mask"
EXPECTED = {
    "bert": ([PADDED] * 2, 0),
    "modernbert": ([PADDED, BIASED], 4),
    "nomic_bert": ([PADDED] * 2, 4),
    "llama": ([CAUSAL] * 2, 4),
    # A sliding window of 16 tokens, which CUDA's kernel takes as a bias.
    "mistral": ([BIASED] * 2, 4),
    "qwen3": ([CAUSAL] * 2, 4),
    "gemma3_text": ([BIASED] * 2, 4),
    "dinov2": ([BARE] * 2, 0),
}
# Where queries, keys and values are three products, and where attention can take them as one.
THREE = {"bert", "dinov2", "llama", "mistral", "qwen3", "gemma3_text"}
TOGETHER = {"bert", "dinov2"}
# Heads of keys and values, where groups of the four of queries share them.
SHARED = {"mistral": 2, "qwen3": 2, "gemma3_text": 2}
# How the last layer is masked for the pooled token alone.
POOLED = {
    ("bert", "cls"): PADDED,
    ("dinov2", None): BARE,
    # No token is later than the last one.
    ("qwen3", "lasttoken"): PADDED,
    ("modernbert", "cls"): BIASED,
    ("mistral", "lasttoken"): BIASED,
}
# Operators that move no numbers.
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Shape"}
QUICK = ("bert", "dinov2")
SHAPES = [(1, 1), (1, 9), (3, 40)]


@functools.cache
def traced(kind: str, pooling: str | None = None) -> ir.Model:
    """A portable graph, traced once; tests that change it clone it."""
    with tempfile.TemporaryDirectory() as place:
        return made(kind, Path(place), pooling)


def made(kind: str, directory: Path, pooling: str | None) -> ir.Model:
    vision = next((t for t in VISION if t.model_type == kind), None)
    if vision is not None:
        path = save_vision(vision, directory)
    else:
        path = save_tiny(next(t for t in TINY if t.model_type == kind), directory)
    loaded = load_model(str(path), None, "cpu", Overrides(pooling))
    (part,) = loaded.parts()
    return trace(part, loaded.model_type, None)


def run(graph: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    model = ir.to_proto(graph).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[-1]


def feeds_of(graph: ir.Model, batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(length)
    lengths = rng.integers(1, length + 1, batch)
    lengths[0] = length
    feeds: dict[str, np.ndarray] = {}
    for value in graph.graph.inputs:
        if value.name == "pixel_values":
            shape = [batch, *value.shape[1:]]
            feeds["pixel_values"] = rng.standard_normal(shape).astype(np.float32)
        else:
            feeds[value.name] = np.zeros((batch, length), np.int64)
    if "input_ids" in feeds:
        feeds["input_ids"] = rng.integers(5, 80, (batch, length))
        feeds["attention_mask"] = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return feeds


def form(node: ir.Node) -> str:
    """How a layer hides keys: both operators have the last input, where there is one, for that."""
    if any(node.attributes.get_int(name, 0) for name in ("is_causal", "unidirectional")):
        return CAUSAL
    bias, lengths = (4, 7) if node.op_type == "Attention" else (6, 5)
    return ({3: BARE, 4: BARE} | {bias: BIASED, lengths: PADDED})[len(node.inputs)]


def safest(hidden: Sequence[str], precision: str) -> str:
    """What was right on an H100 with the fused kernel; else what was right there everywhere."""
    proven = {BARE: ("fp32", "fp16"), PADDED: ("fp16",)}
    fused = all(precision in proven.get(each, ()) for each in hidden)
    return CONTRIB if fused else PLAIN


@pytest.mark.parametrize(
    "kind",
    [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in EXPECTED],
)
def test_passes_apply_and_keep_the_vectors(kind: str) -> None:
    hidden, rotations = EXPECTED[kind]
    graph = traced(kind)
    found: dict[str, dict[str, ir.Model]] = {}
    for precision, name, model in graphs_for_cuda(graph, ("fp32", "fp16", "bf16")):
        found.setdefault(precision, {})[name] = model
    for precision, models in found.items():
        assert next(iter(models)) == safest(hidden, precision)
        assert set(models) == {PLAIN, STANDARD, CONTRIB, *([PACKED] if kind in TOGETHER else [])}
    before = Counter(n.op_type for n in graph.graph)
    for name, fused in found["fp32"].items():
        if name == PACKED:
            assert all(
                n.inputs[1] is n.inputs[2] is None for n in fused.graph if n.op_type == CONTRIB
            )
            take_apart(fused)
        nodes = [n for n in fused.graph if n.op_type in (STANDARD, CONTRIB)]
        assert {n.op_type for n in nodes} == {name.partition("-")[0]} - {PLAIN}
        assert sorted(map(form, nodes)) == sorted([] if name == PLAIN else hidden)
        shared = {n.attributes.get_int("kv_num_heads") for n in nodes if n.op_type == STANDARD}
        assert shared == ({SHARED.get(kind, 4)} if name == STANDARD else set())
        operators = Counter(node.op_type for node in fused.graph)
        assert operators["RotaryEmbedding"] == (0 if name == PLAIN else rotations)
        assert operators["Softmax"] == (2 if name == PLAIN else 0)
        saved = (4 if kind in THREE else 0) + (0 if name == PLAIN else 4)
        assert operators["MatMul"] <= before["MatMul"] - saved
        # A scale a layer is in its weights.
        assert kind != "dinov2" or operators["Mul"] <= before["Mul"] - 4
        # Squares of activations overflow fp16, and bf16 has no kernel for Reciprocal.
        assert not operators["Reciprocal"] + operators["Pow"]
        assert not operators["If"], "CUDA graphs take no branches"
        assert [v.name for v in fused.graph.outputs] == [v.name for v in graph.graph.outputs]
        for batch, length in SHAPES:
            feeds = feeds_of(graph, batch, length)
            want, got = run(graph, feeds), run(fused, feeds)
            assert np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [k if k[0] == "dinov2" else pytest.param(*k, marks=pytest.mark.slow) for k in POOLED],
)
def test_the_last_layer_of_the_pooled_token_alone(kind: str, pooling: str | None) -> None:
    graph = traced(kind, pooling)
    embedding = str(graph.graph.outputs[1].name)
    for _, name, model in graphs_for_cuda(graph, ("fp32",), embedding):
        assert [v.name for v in model.graph.outputs] == [embedding]
        alone = [n for n in model.graph if n.op_type == "MatMul" and one_token(n)]
        # Queries where they are a product of their own, output, and the feed-forward part.
        assert len([n for n in alone if len(n.inputs[1].shape) == 2]) >= 3
        # The form that may go first leaves the layer in plain operators.
        fused = [form(n) for n in model.graph if n.op_type in (STANDARD, CONTRIB)]
        assert len(fused) == {PLAIN: 0, CONTRIB: 1}.get(name, 2)
        assert fused[1:] in ([], [POOLED[kind, pooling]])
        # CUDA has a kernel for the largest of floats alone.
        places = [n.inputs[0] for n in model.graph if n.op_type == "ArgMax"]
        assert {value.dtype for value in places} <= {ir.DataType.FLOAT}
        take_apart(model)
        half = model.clone()
        assert to_half(half, "fp16")
        for batch, length in SHAPES:
            feeds = feeds_of(graph, batch, length)
            want, got = run(graph, feeds), run(model, feeds)
            largest = max(1.0, np.abs(want).max())
            assert np.abs(got - want).max() <= 2e-6 * largest
            if name in (PLAIN, CONTRIB):
                assert np.abs(run(half, feeds) - want).max() <= 4e-3 * largest


def one_token(node: ir.Node) -> bool:
    shape = node.inputs[0].shape
    return shape is not None and len(shape) == 3 and shape[1] == 1


def left(model: ir.Model, place: Path) -> Counter[str]:
    """The operators that ONNX Runtime leaves after its own optimization, views left out."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(place)
    options.log_severity_level = 3
    content = ir.to_proto(model).SerializeToString()
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in ir.load(place).graph)
    return Counter({name: count for name, count in found.items() if name not in VIEWS})


def test_few_operators_are_left(tmp_path: Path) -> None:
    """A stand-in for kernels: residual sums and biases are in layer normalization and Gelu."""
    portable = traced("bert")
    found = {form: graph for _, form, graph in graphs_for_cuda(portable, ("fp32",))}
    before = left(portable, tmp_path / "optimized.onnx")
    after = left(found[CONTRIB], tmp_path / "optimized.onnx")
    assert after["SkipLayerNormalization"] >= 4
    assert after["BiasGelu"] == 2
    # Of a layer: one product of queries, keys and values and three others, the sum of its bias, a
    # split, attention, two norms with residual sums and biases, and a Gelu.
    assert after["MatMul"] == 2 * 4
    assert after["Split"] == after[CONTRIB] == 2
    assert after.total() <= before.total() - 2 * 8, (before, after)


def windowed(width: int) -> ir.Model:
    """A mask that hides padding and the keys ``width`` tokens away."""
    mask = ir.val("attention_mask", dtype=ir.DataType.INT64, shape=["batch", "length"])
    nodes: list[ir.Node] = []

    def node(op: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes))
        return nodes[-1].outputs[0]

    constants = []

    def number(name: str, value: object, dtype: ir.DataType) -> ir.Value:
        tensor = ir.tensor(value, dtype=dtype, name=name)
        constants.append(ir.val(name, dtype=dtype, const_value=tensor))
        return constants[-1]

    int64, float32 = ir.DataType.INT64, ir.DataType.FLOAT
    zero, one = number("zero", 0, int64), number("one", 1, int64)
    length = node("Squeeze", [node("Shape", [mask], start=1, end=2)])
    positions = node("Range", [zero, length, one])
    apart = node(
        "Abs",
        [
            node(
                "Sub",
                [
                    node("Unsqueeze", [positions, number("last", [1], int64)]),
                    node("Unsqueeze", [positions, number("first", [0], int64)]),
                ],
            )
        ],
    )
    near = node("LessOrEqual", [apart, number("width", width, int64)])
    real = node("Cast", [mask], to=ir.DataType.BOOL)
    real = node("Unsqueeze", [real, number("inner", [1, 2], int64)])
    allowed = node("And", [near, real])
    bias = node(
        "Where", [allowed, number("nothing", 0.0, float32), number("masked", -3.4e38, float32)]
    )
    bias.name = "bias"
    graph = ir.Graph([mask], [bias], nodes=nodes, initializers=constants, opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("width", [1, 16, 500])
def test_a_window_is_found_however_wide(width: int) -> None:
    assert masking_of(windowed(width), "bias") == Masking(True, width, width)


def test_a_window_wider_than_what_is_tried_is_not_taken_for_none() -> None:
    assert masking_of(windowed(100_000), "bias") is None


def test_a_graph_without_attention_stays_as_it_is() -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["n", 4])
    node = ir.node("Softmax", [x])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    ((_, form, found),) = graphs_for_cuda(model, ("fp32",))
    assert form == PLAIN
    assert [n.op_type for n in found.graph] == ["Softmax"]
