"""Graphs without padding: as ONNX Runtime specifies their operators, they give the same vectors.

The CPU has no kernels for three of them, so that numpy stands in; ONNX Runtime checks their types.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from fmrt.export.rewrite import optimize_for_cuda, pack_for_cuda
from fmrt.export.rewrite.half import to_half
from fmrt.export.rewrite.sums import fuse_sums
from tests.export.packed_operators import OPERATORS
from tests.export.test_cuda_rewrite import feeds_of, run, traced

PACKED = ("bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra")
# Rotation, position biases, causal masks, windows; no texts.
OTHERS = ("nomic_bert", "mpnet", "llama", "modernbert", "dinov2")
QUICK = ("bert", "distilbert", "llama", "modernbert", "dinov2")
BATCHES = {
    "padding": (3, 40),
    "no padding": (2, 7),
    "one text": (1, 9),
    "texts of one token": (3, 1),
    "one text of one token": (1, 1),
}


def slowly(kinds: tuple[str, ...]) -> list[object]:
    return [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in kinds]


def varied(kind: str) -> ir.Model:
    """A traced graph, its biases and norms all different, where the model's are zero or one."""
    model = traced(kind).clone()
    rng = np.random.default_rng(0)
    for number, node in enumerate(list(model.graph)):
        for index, value in enumerate(node.inputs):
            tensor = value.const_value if value is not None else None
            if tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 1:
                name = f"row_{number}_{index}"
                content = tensor.numpy() + rng.normal(0, 0.3, tensor.shape).astype(np.float32)
                own = ir.val(name, const_value=ir.tensor(content.astype(np.float32), name=name))
                model.graph.initializers[name] = own
                node.replace_input_with(index, own)
    return model


def fused(model: ir.Model, precision: str = "fp32") -> ir.Model:
    """The padded graph for CUDA, with attention as fp16 has it."""
    copy = model.clone()
    optimize_for_cuda(copy, "fp16")
    if precision != "fp32":
        to_half(copy, precision)
    return copy


def packed(model: ir.Model, precision: str = "fp32") -> ir.Model:
    copy = fused(model, precision)
    assert pack_for_cuda(copy)["remove_padding"] == 2
    return copy


def evaluate(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ReferenceEvaluator(ir.to_proto(model), new_ops=OPERATORS).run(None, feeds)


def batch_of(model: ir.Model, name: str) -> dict[str, np.ndarray]:
    feeds = feeds_of(model, *BATCHES[name])
    if name == "no padding":
        feeds["attention_mask"][:] = 1
    return feeds


def nodes_of(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


@pytest.mark.parametrize("kind", slowly(PACKED))
def test_vectors_are_the_portable_graphs(kind: str) -> None:
    portable = varied(kind)
    graph = packed(portable)
    assert [(v.name, v.shape) for v in graph.graph.outputs] == [
        (v.name, v.shape) for v in portable.graph.outputs
    ]
    for name in BATCHES:
        feeds = batch_of(portable, name)
        tokens, vectors = evaluate(graph, feeds)
        want = run(portable, feeds)
        assert np.abs(vectors - want).max() <= 2e-6 * max(1.0, np.abs(want).max()), name
        assert not tokens[feeds["attention_mask"] == 0].any()


def test_halves_are_those_of_the_padded_graph() -> None:
    portable = varied("bert")
    padded, graph = fused(portable, "fp16"), packed(portable, "fp16")
    weights = {name: v.const_value for name, v in padded.graph.initializers.items()}
    for name, value in graph.graph.initializers.items():
        assert value.dtype == weights[name].dtype
        assert value.const_value.tobytes() == weights[name].tobytes()
    (removal,) = nodes_of(graph, "RemovePadding")
    assert removal.inputs[0].dtype == ir.DataType.FLOAT16
    for name in BATCHES:
        feeds = batch_of(portable, name)
        want, got = run(padded, feeds), evaluate(graph, feeds)[1]
        assert np.abs(got - want).max() <= 2e-3 * np.abs(want).max(), name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_between_the_borders_nothing_is_padded(precision: str) -> None:
    graph = packed(varied("bert"), precision)
    nodes = list(graph.graph)
    (removal,), (restoring,) = (nodes_of(graph, n) for n in ("RemovePadding", "RestorePadding"))
    between, masked = set(), {v for v in graph.graph.inputs if v.name == "attention_mask"}
    rows, others = {removal.outputs[0]}, set(removal.outputs[1:])
    for node in nodes:
        if not masked.isdisjoint(node.inputs) and node is not removal:
            masked.update(node.outputs)
        if node is not restoring and not rows.isdisjoint(node.inputs):
            between.add(node)
            rows.update(node.outputs)
    counted = Counter(node.op_type for node in between)
    assert counted["PackedMultiHeadAttention"] == 2
    assert counted["MatMul"] == 12
    assert not Counter(n.op_type for n in nodes)["MultiHeadAttention"]
    for node in between:
        assert masked.isdisjoint(node.inputs), node
        for value in node.inputs:
            assert (
                value in rows or value in others or value is None or value.const_value is not None
            )
    # Sizes as stated, and as they come out: 12 real tokens among 3 times 8 positions.
    assert {tuple(map(str, v.shape))[:-1] for v in rows} == {("tokens",)}
    graph.graph.outputs.extend(rows)
    feeds = feeds_of(graph, 3, 8)
    feeds["attention_mask"] = (np.arange(8) < np.array([[8], [1], [3]])).astype(np.int64)
    found = evaluate(graph, feeds)[2:]
    assert {(a.ndim, len(a)) for a in found} == {(2, 12)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_onnx_runtime_lacks_is_kernels_alone(precision: str) -> None:
    """It checks types and attributes first, as what is broken on purpose shows."""

    def load(model: ir.Model) -> None:
        content = ir.to_proto(model).SerializeToString()
        ort.InferenceSession(content, providers=["CPUExecutionProvider"])

    graph = packed(varied("bert"), precision)
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*(Remove|Restore|Packed)") as caught:
        load(graph)
    assert type(caught.value).__name__ == "NotImplemented"

    wide = graph.clone()
    (removal,) = nodes_of(wide, "RemovePadding")
    removal.replace_input_with(1, removal.inputs[1].producer().inputs[0])
    with pytest.raises(Exception, match=r"INVALID_GRAPH.*int64"):
        load(wide)
    bare = graph.clone()
    del nodes_of(bare, "PackedMultiHeadAttention")[0].attributes["num_heads"]
    with pytest.raises(Exception, match="num_heads"):
        load(bare)
    flat = graph.clone()
    (restoring,) = nodes_of(flat, "RestorePadding")
    restoring.replace_input_with(1, nodes_of(flat, "RemovePadding")[0].outputs[2])
    with pytest.raises(Exception, match="2 dimensions"):
        load(flat)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_text_without_tokens_gives_numbers(precision: str) -> None:
    portable = varied("bert")
    feeds = feeds_of(portable, 3, 8)
    for empty in ([1], [0, 1, 2]):
        feeds["attention_mask"][empty] = 0
        for values in (
            *evaluate(packed(portable, precision), feeds),
            run(fused(portable, precision), feeds),
        ):
            assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", slowly(OTHERS))
def test_others_keep_their_padding(kind: str) -> None:
    for precision in ("fp32", "fp16"):
        graph = fused(traced(kind), precision)
        before = [node.op_type for node in graph.graph]
        assert pack_for_cuda(graph) == {}
        assert [node.op_type for node in graph.graph] == before


def test_bf16_has_no_kernels() -> None:
    assert pack_for_cuda(fused(traced("bert"), "bf16")) == {}


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_reads_the_mask_keeps_the_padding(layer: int) -> None:
    """As one whose rows are multiplied by the mask, or mixed along the sequence."""
    graph = fused(traced("bert"))
    attention = nodes_of(graph, "MultiHeadAttention")[layer]
    rows = attention.inputs[0]
    mask = next(v for v in graph.graph.inputs if v.name == "attention_mask")
    axis = ir.val("axis", const_value=ir.tensor([2], dtype=ir.DataType.INT64, name="axis"))
    graph.graph.initializers["axis"] = axis
    column = ir.node("Unsqueeze", [mask, axis])
    single = ir.node("Cast", column.outputs, {"to": ir.DataType.FLOAT})
    hidden = ir.node("Mul", [rows, single.outputs[0]])
    hidden.outputs[0].shape, hidden.outputs[0].type = rows.shape, rows.type
    graph.graph.insert_before(attention, [column, single, hidden])
    attention.replace_input_with(0, hidden.outputs[0])
    before = [node.op_type for node in graph.graph]
    assert pack_for_cuda(graph) == {}
    assert [node.op_type for node in graph.graph] == before


@pytest.mark.parametrize("kind", slowly(("bert", "distilbert", "albert")))
def test_sums_are_fused_as_onnx_runtime_fuses_them(kind: str, tmp_path: Path) -> None:
    """It has these operators on the CPU too, and fuses the padded graph to the same."""
    portable = varied(kind)
    padded = fused(portable)
    graph = padded.clone()
    fuse_sums(graph)
    found = []
    for name, model in {"own": graph, "theirs": padded}.items():
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        content = ir.to_proto(model).SerializeToString()
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        loaded = ir.load(tmp_path / f"{name}.onnx").graph
        fusions = Counter(n.op_type for n in loaded if n.op_type in ("BiasGelu", "Gelu"))
        skips = Counter(len(n.inputs) for n in loaded if n.op_type == "SkipLayerNormalization")
        found.append((fusions, skips[5]))
    assert found[0] == found[1]
    assert found[0][1] == 4
    for name, (batch, length) in itertools.product(["fp32"], [(3, 40), (1, 1)]):
        feeds = feeds_of(portable, batch, length)
        want, got = run(portable, feeds), run(graph, feeds)
        assert np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max()), name
