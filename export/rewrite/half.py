"""Weights and arithmetic in half precision, with single precision where it is needed.

Single precision stay:

- the head: everything after the first output, or after the pooled token where a pass has left no
  other, and what that alone reads, so that pooling and normalization add up in it: fp16 has no
  2,049 tokens, and no 1e-9 to divide by instead of 0;
- angles and indices: everything before a sine, a cosine or a cast to integers, since a
  position of 1,000 times a frequency has no exact half;
- the graph's inputs and outputs, so that callers see no difference.

Casts stand at the borders. Layer normalization computes in single precision inside. Constants
beyond fp16's range, and infinite ones, stand for minus infinity and become a number in it that a
score may be added to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.walking import constant
from fmrt.export.rewrite.pooled_token import POOLED

FLOAT = ir.DataType.FLOAT
_IN_SCHEMAS = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}
HALF_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_NUMPY = {ir.DataType.FLOAT16: np.dtype(np.float16), ir.DataType.BFLOAT16: ml_dtypes.bfloat16}
ANGLES = frozenset({"Cos", "Sin"})
# The opset where exports begin.
OLDEST = 18
# Operators that have no kernel in half precision in ONNX Runtime 1.31.1 (of bf16: its library has
# theirs for fp16 alone), and inputs of others that have none, by position.
SINGLE = {
    ir.DataType.FLOAT16: frozenset({"Range"}),
    ir.DataType.BFLOAT16: frozenset(
        {"ArgMax", "ArgMin", "BatchNormalization", "Equal", "Greater", "GreaterOrEqual", "Less"}
        | {"LessOrEqual", "Ceil", "Floor", "LeakyRelu", "PRelu", "Log", "Pad", "Range"}
        | {"Reciprocal", "Resize", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceProd"}
        | {"ReduceSumSquare"}
    ),
}
FLOAT_ONLY = {"Resize": (2,), "Upsample": (1,)}
# fp16's largest number; and for what stands for minus infinity a number far below any score, whose
# sum with one stays finite.
LARGEST = 65504.0
LOWEST = -30000.0
# Outputs of these have a type of their own, whatever their inputs'.
TYPED = {
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero", "Shape", "Size"), ir.DataType.INT64),
    **dict.fromkeys(("And", "Equal", "IsInf", "IsNaN", "Not", "Or", "Xor"), ir.DataType.BOOL),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual"), ir.DataType.BOOL),
}
# The type of what these choose between is that of their second input.
CHOOSING = frozenset({"Where"})


def to_half(model: ir.Model, precision: str, keep: AbstractSet[ir.Node] = frozenset()) -> int:
    """Apply the pass in place; returns the number of weights converted.

    Args:
        model: A graph in fp32 without branches.
        precision: The precision, ``fp16`` or ``bf16``.
        keep: The nodes of the graph that keep single precision next to those of the module's
            docstring.
    """
    fill_types(model.graph)
    half = HALF_TYPES[precision]
    single = SINGLE[half] | _not_of_the_standard(_IN_SCHEMAS[half])
    conversion = _Conversion(model.graph, half, _single_nodes(model.graph, single) | keep)
    for node in list(model.graph):
        conversion.visit(node)
    conversion.finish()
    RemoveUnusedNodesPass()(model)
    return conversion.count


@functools.cache
def _not_of_the_standard(half: str) -> frozenset[str]:
    """Operators whose first input may be fp32, and not in half precision, in the oldest opset.

    Convolutions, pooling and sorting are among those that do not take bf16.
    """
    names = {schema.name for schema in onnx.defs.get_all_schemas()}
    known = [name for name in names if onnx.defs.has(name, OLDEST, "")]
    return frozenset(name for name in known if _lacks(onnx.defs.get_schema(name, OLDEST, ""), half))


def _lacks(schema: onnx.defs.OpSchema, half: str) -> bool:
    kind = schema.inputs[0].type_str if schema.inputs else None
    allowed = [c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == kind]
    return any("tensor(float)" in types and half not in types for types in allowed)


def fill_types(graph: ir.Graph) -> None:
    """Types of the values that other passes made: that of the first input, for most operators."""
    for node in graph:
        for out in node.outputs:
            if out.dtype is None:
                inputs = node.inputs[1:] if node.op_type in CHOOSING else node.inputs
                first = next((i.dtype for i in inputs if i is not None and i.dtype), None)
                found = _cast_target(node) or TYPED.get(node.op_type) or first
                out.type = ir.TensorType(found) if found is not None else None


def _cast_target(node: ir.Node) -> ir.DataType | None:
    return ir.DataType(node.attributes["to"].as_int()) if node.op_type == "Cast" else None


class _Conversion:
    def __init__(self, graph: ir.Graph, half: ir.DataType, single: AbstractSet[ir.Node]) -> None:
        self.count = 0
        self._graph = graph
        self._half = half
        self._single = single
        # Twins of another precision: by value, single -> half or half -> single.
        self._halves: dict[ir.Value, ir.Value] = {}
        self._singles: dict[ir.Value, ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        """Bring a node's inputs to its precision."""
        single = node in self._single
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            whole = single or index in FLOAT_ONLY.get(node.op_type, ())
            if whole and value.dtype == self._half:
                node.replace_input_with(index, self._cast(value, FLOAT, self._singles))
            elif not whole and value.dtype == FLOAT:
                node.replace_input_with(index, self._half_of(value))
        if single:
            return
        self._convert_attributes(node)
        for out in node.outputs:
            if out.dtype == FLOAT:
                out.type = ir.TensorType(self._half)  # types are shared between values

    def finish(self) -> None:
        """Give outputs of the graph that have become halves their type again."""
        for index, out in enumerate(self._graph.outputs):
            if out.dtype == self._half:
                name, out.name = out.name, f"{out.name}_half"
                cast = self._singles.get(out) or self._cast(out, FLOAT, self._singles)
                cast.name, cast.shape = name, out.shape
                self._graph.outputs[index] = cast

    def _half_of(self, value: ir.Value) -> ir.Value:
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            return self._cast(value, self._half, self._halves)
        if value not in self._halves:
            self._halves[value] = self._initializer(f"{value.name}_half", tensor)
            self.count += 1
        return self._halves[value]

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        converted = ir.Tensor(_rounded(tensor.numpy(), self._half), dtype=self._half, name=name)
        made = ir.Value(
            name=name, shape=converted.shape, type=ir.TensorType(self._half), const_value=converted
        )
        self._graph.initializers[name] = made
        return made

    def _cast(self, value: ir.Value, to: ir.DataType, known: dict[ir.Value, ir.Value]) -> ir.Value:
        if value not in known:
            cast = ir.node("Cast", [value], {"to": int(to)})
            place = value.producer()
            if place is None:
                self._graph.insert_before(self._graph[0], cast)
            else:
                self._graph.insert_after(place, cast)
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(to), value.shape
            known[value] = cast.outputs[0]
        return known[value]

    def _convert_attributes(self, node: ir.Node) -> None:
        """Casts and constants that gave single precision give half."""
        if _cast_target(node) == FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(self._half))
        if node.op_type in ("Constant", "ConstantOfShape") and node.outputs[0].dtype == FLOAT:
            tensor = _content(node)
            for name in [name for name in node.attributes if name.startswith("value")]:
                del node.attributes[name]
            rounded = ir.Tensor(_rounded(tensor, self._half), dtype=self._half)
            node.attributes["value"] = ir.AttrTensor("value", rounded)


def in_range(values: np.ndarray) -> np.ndarray:
    """An array that fp16 holds: itself, or limited to `LOWEST` and its opposite."""
    beyond = np.abs(values).max(initial=0) > LARGEST
    return np.clip(values, LOWEST, -LOWEST) if beyond else values


def _rounded(values: np.ndarray, half: ir.DataType) -> np.ndarray:
    values = in_range(values) if half == ir.DataType.FLOAT16 else values
    return np.ascontiguousarray(values.astype(_NUMPY[half]))


def _content(node: ir.Node) -> np.ndarray:
    """What a ``Constant`` holds, or a ``ConstantOfShape`` repeats."""
    found = constant(node.outputs[0])
    if found is None and "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    return np.zeros(1, np.float32) if found is None else found


def _single_nodes(graph: ir.Graph, operators: AbstractSet[str]) -> set[ir.Node]:
    """The nodes that keep single precision: ``operators``, and those of the module's docstring."""
    angles = {node for node in graph if node.op_type in ANGLES}
    indices = {node for node in graph if _makes_indices(node)}
    plain = {node for node in graph if node.op_type in operators}
    return angles | plain | _head(graph) | _ahead(angles | indices)


def _head(graph: ir.Graph) -> set[ir.Node]:
    """The nodes after the states or the pooled token, and those that no other node reads."""
    border = _border(graph)
    found = _behind(border)
    for node in reversed(graph):
        readers = {use.node for out in node.outputs for use in out.uses()}
        inside = not any(out is border or out.is_graph_output() for out in node.outputs)
        if inside and readers and readers <= found:
            found.add(node)
    return found


def _border(graph: ir.Graph) -> ir.Value:
    """The states of all tokens, which are the first output, or the pooled token's."""
    values = (value for node in graph for value in node.outputs)
    return next((value for value in values if POOLED in value.meta), graph.outputs[0])


def _behind(value: ir.Value) -> set[ir.Node]:
    """The nodes that a value reaches."""
    found: set[ir.Node] = set()
    left = [value]
    while left:
        for node in {use.node for use in left.pop().uses()} - found:
            found.add(node)
            left.extend(node.outputs)
    return found


def _ahead(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """The nodes that reach any of ``nodes``."""
    found: set[ir.Node] = set()
    left = list(nodes)
    while left:
        producers = (i.producer() for i in left.pop().inputs if i is not None)
        new = {node for node in producers if node is not None} - found
        found |= new
        left.extend(new)
    return found


def _makes_indices(node: ir.Node) -> bool:
    target = _cast_target(node)
    first = node.inputs[0] if node.inputs else None
    return target in (ir.DataType.INT64, ir.DataType.INT32) and (
        first is not None and first.dtype == FLOAT
    )
