"""Half precision: weights stored in 16 bits for the CPU, weights and arithmetic for GPUs.

``store_half``: a large weight becomes float16 with a ``Cast`` to float32 after it. ONNX Runtime
computes that cast once at load, so products run as they do in fp32. An embedding table is cast
after its look-up instead, and stays in 16 bits in memory too.

``compute_half``: `fmrt.export.rewrite.half`, and what would overflow in float16 keeps float32 too.
Which nodes those are is measured: the fp32 graph runs on calibration items, and a node whose values
come near float16's largest number is kept. So are sums over tokens and squares, since longer items
than calibration's would reach it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fmrt.errors import ExportError
from fmrt.export.quantize.context import Context, Made
from fmrt.export.quantize.emit import Writer
from fmrt.export.rewrite import graphs_for_cuda
from fmrt.export.rewrite.cuda_attention import take_apart
from fmrt.export.rewrite.graph.walking import constant
from fmrt.export.rewrite.half import LARGEST, fill_types, in_range, to_half

FULL = ir.DataType.FLOAT
# A node keeps float32 when calibration comes within this factor of the largest number.
HEADROOM = 8.0
# Sums over many values, and squares.
SUMS = frozenset(
    {"ReduceSum", "ReduceL2", "ReduceMean", "ReduceSumSquare", "Pow", "LpNormalization", "CumSum"}
)
# Smaller constants are not worth a node more.
SMALLEST = 1024


def store_half(context: Context) -> Made:
    """Weights in 16 bits, arithmetic in 32."""
    model = context.base.clone()
    store_weights(model)
    return Made(model)


def store_weights(model: ir.Model) -> int:
    """Store the large float32 constants in 16 bits, in place; returns how many."""
    writer = Writer(model, "half")
    count = 0
    for value in list(model.graph.initializers.values()):
        array = constant(value)
        if array is None or array.dtype != np.float32 or array.size < SMALLEST:
            continue
        if np.abs(array).max() <= LARGEST:
            _store(model, writer, value, array.astype(np.float16))
            count += 1
    return count


def _store(model: ir.Model, writer: Writer, value: ir.Value, half: np.ndarray) -> None:
    stored = writer.constant(half)
    uses = list(value.uses())
    looked_up = [u for u in uses if u.node.op_type == "Gather" and u.idx == 0]
    for use in looked_up:
        out = use.node.outputs[0]
        floats = writer.add(use.node, "Gather", [stored, use.node.inputs[1]], _axis(use.node))
        cast = writer.add(use.node, "Cast", [floats], {"to": int(FULL)})
        cast.shape, cast.type = out.shape, out.type
        out.replace_all_uses_with(cast, replace_graph_outputs=True)
        model.graph.remove(use.node, safe=True)
    if len(looked_up) < len(uses):
        cast = writer.add(model.graph[0], "Cast", [stored], {"to": int(FULL)})
        cast.shape, cast.type = value.shape, value.type
        value.replace_all_uses_with(cast)
    model.graph.initializers.pop(str(value.name))


def _axis(node: ir.Node) -> dict[str, int | float]:
    return {"axis": node.attributes.get_int("axis", 0)}


def compute_half(context: Context) -> Made:
    """Weights and arithmetic in 16 bits, with what would overflow in 32.

    Raises:
        ExportError: The graph has branches, whose insides this does not convert.
    """
    embedding = context.tower.embedding_output
    graphs = {
        form: _in_half(context, graph)
        for _, form, graph in graphs_for_cuda(context.base, ("fp16",), embedding)
    }
    first = next(iter(graphs))
    return Made(graphs.pop(first), form=first, forms=graphs)


def _in_half(context: Context, model: ir.Model) -> ir.Model:
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for node in model.graph
        for a in node.attributes.values()
    ):
        raise ExportError("a graph with branches cannot be converted to fp16 arithmetic")
    ShapeInferencePass()(model)
    fill_types(model.graph)
    _limit_constants(model)
    to_half(model, "fp16", keep=_overflowing(context, model))
    return model


def _limit_constants(model: ir.Model) -> None:
    """Bring what stands for minus infinity into range, or what it is added to seems to overflow."""
    for value in _constants(model):
        array = constant(value)
        if array is None or array.dtype != np.float32:
            continue
        limited = in_range(array)
        if limited is not array:
            value.const_value = ir.tensor(limited, name=value.name)
            producer = value.producer()
            if producer is not None:
                producer.attributes["value"] = ir.AttrTensor("value", value.const_value)


def _constants(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.initializers.values()
    yield from (n.outputs[0] for n in model.graph if n.op_type in ("Constant", "ConstantOfShape"))


def _overflowing(context: Context, model: ir.Model) -> set[ir.Node]:
    """Nodes that see values near float16's largest number, or would with longer items."""
    names = [
        str(v.name) for node in model.graph for v in node.outputs if v.dtype == FULL and v.uses()
    ]
    apart = model.clone()
    take_apart(apart)
    largest = context.range_probe.largest(apart, names)
    near = {name for name, most in largest.items() if not most < LARGEST / HEADROOM}
    return {
        node
        for node in model.graph
        if (node.domain == "" and node.op_type in SUMS)
        or any(v is not None and v.name in near for v in (*node.inputs, *node.outputs))
    }
