"""Finds the attention of a layer in a graph, however it is scaled, biased and shared by heads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from fmrt.export.rewrite.graph.building import HEADS_OUTSIDE, LAST_TWO_EXCHANGED
from fmrt.export.rewrite.graph.walking import (
    HEADS_AXES,
    TOKENS_AXES,
    constant,
    producer,
    same_axes,
    scalar,
    shape_of,
    single_use,
)


@dataclass(frozen=True)
class Scores:
    """``scale queries @ keys^T`` plus the biases.

    Attributes:
        queries, keys: The queries and the keys, each ``[batch, heads, sequence, head size]``.
        scale: The scale of the product.
        biases: The biases that broadcast to ``[batch, heads, queries, keys]``.
    """

    queries: ir.Value
    keys: ir.Value
    scale: float
    biases: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Attention:
    """One layer's attention, as found in the graph.

    Attributes:
        scores: The scores before softmax.
        values: The values, ``[batch, heads, sequence, head size]``.
        joined: The result, ``[batch, sequence, hidden]``.
        last: The node that gives it.
        heads: The number of heads.
        size: The size of a head.
    """

    scores: Scores
    values: ir.Value
    joined: ir.Value
    last: ir.Node
    heads: int
    size: int

    @property
    def one_query(self) -> bool:
        """Whether it is computed for one token alone, the pooled one."""
        queries = self.scores.queries.shape
        return queries is not None and queries[2] == 1


def find_attention(softmax: ir.Node) -> Attention | None:
    """The attention around a softmax, from heads to joined heads; None for other forms."""
    scores = _scores(softmax.inputs[0])
    attended = single_use(softmax.outputs[0], "MatMul", 0)
    heads = single_use(attended.outputs[0], "Transpose", 0) if attended else None
    joined = single_use(heads.outputs[0], "Reshape", 0) if heads else None
    if scores is None or attended is None or heads is None or joined is None:
        return None
    if tuple(heads.attributes["perm"].as_ints()) != HEADS_OUTSIDE:
        return None
    values, out = attended.inputs[1], joined.outputs[0]
    shape = shape_of(values, HEADS_AXES)
    if values is None or shape is None or shape_of(out, TOKENS_AXES) is None:
        return None
    alike = same_axes(scores.queries, values, one_query=True) and same_axes(scores.keys, values)
    if not alike:
        return None
    count, size = (int(str(shape[axis])) for axis in (1, 3))
    return Attention(scores, values, out, joined, count, size)


def ungrouped(value: ir.Value) -> ir.Value:
    """Keys or values of fewer heads, before each is repeated for a group of queries' heads."""
    joined = producer(value, "Reshape")
    repeated = producer(joined.inputs[0], "Expand") if joined is not None else None
    spread = producer(repeated.inputs[0], "Unsqueeze") if repeated is not None else None
    if spread is None:
        return value
    few, axes = spread.inputs[0], constant(spread.inputs[1])
    inside = axes is not None and axes.tolist() == [2]
    return few if inside and few is not None and same_axes(few, few) else value


def _scores(value: ir.Value | None) -> Scores | None:
    """Take ``scale q @ k^T + bias + bias`` apart, with the scale on the queries or the product."""
    biases: list[ir.Value] = []
    while (add := producer(value, "Add")) is not None:
        rest = next((i for i in add.inputs if _leads_to_product(i)), None)
        other = next((i for i in add.inputs if i is not rest), None)
        if rest is None or other is None:
            return None
        biases.append(other)
        value = rest
    value, outer = _unscaled(value)
    matmul = producer(value, "MatMul")
    turned = producer(matmul.inputs[1], "Transpose") if matmul is not None else None
    if matmul is None or turned is None:
        return None
    queries, inner = _unscaled(matmul.inputs[0])
    keys = turned.inputs[0]
    exchanged = tuple(turned.attributes["perm"].as_ints()) == LAST_TWO_EXCHANGED
    if not exchanged or queries is None or keys is None:
        return None
    return Scores(queries, keys, inner * outer, tuple(biases))


def _leads_to_product(value: ir.Value | None) -> bool:
    while (add := producer(value, "Add")) is not None:
        value = next((i for i in add.inputs if _leads_to_product(i)), None)
    return producer(_unscaled(value)[0], "MatMul") is not None


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What is multiplied or divided by a constant number, and that number as a factor."""
    for op_type in ("Mul", "Div"):
        node = producer(value, op_type)
        number = scalar(node.inputs[1]) if node is not None else None
        if node is not None and number is not None:
            return node.inputs[0], number if op_type == "Mul" else 1 / number
    return value, 1.0
