"""Half precision: weights stored in 16 bits for the CPU, weights and arithmetic for GPUs.

``store_half``: a large weight becomes float16 with a ``Cast`` to float32 behind it. ONNX Runtime
computes that cast once at load, so products run as they do in fp32. An embedding table is cast
behind its look-up instead, and stays in 16 bits in memory too.

``compute_half``: everything is float16 but what would overflow there. Which nodes those are is
measured: the fp32 graph runs on calibration items, and a node whose values come near float16's
largest number keeps float32, with casts around it. Sums over tokens and squares do too, since
longer items than calibration's would reach it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from export.quantize.context import Context, Made
from export.quantize.emit import Writer
from export.quantize.sites import constant
from export.rewrite import optimize_for_cuda
from export.rewrite.half import fill_types
from fmrt.errors import ExportError

HALF, FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT
LARGEST = 65504.0
# A node keeps float32 when calibration comes within this factor of the largest number.
HEADROOM = 8.0
# What stands for minus infinity in a mask: far below any score, and a sum with one stays finite.
LOWEST = -30000.0
# Sums over many values, and squares.
SUMS = frozenset(
    {"ReduceSum", "ReduceL2", "ReduceMean", "ReduceSumSquare", "Pow", "LpNormalization", "CumSum"}
)
# Smaller constants are not worth a node more.
SMALLEST = 1024
# Inputs of operators that take floats of one type alone, by position.
FLOAT_ONLY = {"Resize": (2,), "Upsample": (1,)}


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
        ExportError: the graph has branches, whose insides this does not convert.
    """
    model = context.base.clone()
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for node in model.graph
        for a in node.attributes.values()
    ):
        raise ExportError("a graph with branches cannot be converted to fp16 arithmetic")
    optimize_for_cuda(model)
    ShapeInferencePass()(model)
    fill_types(model.graph)
    _limit_constants(model)
    _Halving(model, _overflowing(context, model)).run()
    RemoveUnusedNodesPass()(model)
    return Made(model)


def _limit_constants(model: ir.Model) -> None:
    """Bring what stands for minus infinity into range."""
    for value in _constants(model):
        array = constant(value)
        if (
            array is not None
            and array.dtype == np.float32
            and np.abs(array).max(initial=0) > LARGEST
        ):
            limited = np.clip(array, LOWEST, -LOWEST)
            value.const_value = ir.tensor(limited, name=value.name)
            producer = value.producer()
            if producer is not None:
                producer.attributes["value"] = ir.AttrTensor("value", value.const_value)


def _constants(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.initializers.values()
    yield from (n.outputs[0] for n in model.graph if n.op_type in ("Constant", "ConstantOfShape"))


def _overflowing(context: Context, model: ir.Model) -> set[str]:
    """Names of the values that come near float16's largest number."""
    names = [
        str(v.name) for node in model.graph for v in node.outputs if v.dtype == FULL and v.uses()
    ]
    largest = context.range_probe.largest(model, names)
    return {name for name, most in largest.items() if not most < LARGEST / HEADROOM}


class _Halving:
    """Converts node by node; a value has a twin in the other precision where one is asked for."""

    def __init__(self, model: ir.Model, overflowing: set[str]) -> None:
        self._model = model
        self._overflowing = overflowing
        self._writer = Writer(model, "half")
        self._twins: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        graph = self._model.graph
        floats = {v for n in graph for v in n.outputs if v.dtype == FULL}
        floats |= {v for v in (*graph.inputs, *graph.initializers.values()) if v.dtype == FULL}
        self._half: set[ir.Value] = set()
        for node in list(graph):
            self._convert(node, floats)
        for i, out in enumerate(graph.outputs):
            if out in self._half:
                self._restore(i, out)

    def _convert(self, node: ir.Node, floats: set[ir.Value]) -> None:
        half = not self._keeps(node)
        for i, value in enumerate(node.inputs):
            if value is None or value not in floats:
                continue
            wanted = HALF if half and i not in FLOAT_ONLY.get(node.op_type, ()) else FULL
            node.replace_input_with(i, self._as(value, wanted))
        if not half:
            return
        for value in node.outputs:
            if value in floats:
                self._half.add(value)
                # Not its dtype: the type is the clone's and the base's.
                value.type = ir.TensorType(HALF)
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == FULL:
            node.attributes["to"] = ir.AttrInt64("to", int(HALF))
        tensor = node.attributes.get("value")
        if tensor is not None and node.op_type in ("Constant", "ConstantOfShape"):
            array = tensor.as_tensor().numpy()
            if array.dtype == np.float32:
                halved = ir.tensor(array.astype(np.float16))
                node.attributes["value"] = ir.AttrTensor("value", halved)

    def _keeps(self, node: ir.Node) -> bool:
        if node.domain == "" and node.op_type in SUMS | {"Range"}:
            return True
        if node.op_type == "Constant" and "value" not in node.attributes:
            return True
        names = [v.name for v in (*node.inputs, *node.outputs) if v is not None]
        return any(name in self._overflowing for name in names)

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """The value in a precision: itself, a constant converted, or a cast."""
        if wanted == (HALF if value in self._half else FULL):
            return value
        key = (value, wanted)
        if key not in self._twins:
            array = constant(value) if wanted == HALF else None
            if array is not None and value.producer() is None:
                self._twins[key] = self._writer.constant(array.astype(np.float16), like=key)
            else:
                producer = value.producer()
                cast = ir.node("Cast", [value], {"to": int(wanted)})
                if producer is None:
                    self._model.graph.insert_before(self._model.graph[0], cast)
                else:
                    self._model.graph.insert_after(producer, cast)
                cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wanted), value.shape
                self._twins[key] = cast.outputs[0]
        return self._twins[key]

    def _restore(self, index: int, value: ir.Value) -> None:
        """A graph output in float32 again, under its name."""
        producer = value.producer()
        assert producer is not None  # noqa: S101  # a half value is a node's
        cast = ir.node("Cast", [value], {"to": int(FULL)})
        self._model.graph.insert_after(producer, cast)
        out, name = cast.outputs[0], value.name
        value.name = f"{name}_half"
        out.name, out.type, out.shape = name, ir.TensorType(FULL), value.shape
        self._model.graph.outputs[index] = out
