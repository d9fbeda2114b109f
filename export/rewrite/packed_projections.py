"""Queries, keys and values of a layer in one product.

Before: three products of the same tokens with a matrix each, and a sum with a bias each.

After: one product with the three matrices side by side, one sum, and a split. A GPU starts fewer
and larger kernels. Where the three have the same heads, the query, key and value of each head stand
together, ``[batch, sequence, heads, 3, head size]``: ``MultiHeadAttention`` takes them like that.

Not for the CPU, where a split costs what one product saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.walking import (
    constant,
    constant_rank,
    present,
    producer,
    single_use,
)

# Queries, keys and values; and the ranks of a matrix, and of [batch, sequence, heads, head size].
PARTS = 3
MATRIX, IN_HEADS = 2, 4


def pack_projections(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of products that became one of three."""
    groups: dict[ir.Value, list[_Linear]] = {}
    for node in model.graph:
        if node.op_type == "MatMul" and constant_rank(node.inputs[1]) == MATRIX:
            groups.setdefault(present(node.inputs[0]), []).append(_linear(node))
    packed = [group for group in groups.values() if len(group) == PARTS]
    for group in packed:
        _pack(model.graph, group)
    RemoveUnusedNodesPass()(model)
    return len(packed)


@dataclass(frozen=True)
class _Linear:
    """A product with a constant matrix.

    Attributes:
        node: The product.
        out: Its result, with the bias.
        weight: The weight, ``[inputs, outputs]``.
        bias: The bias, ``[outputs]``; None where there is none.
        heads: The number of heads that the result is cut into, and their size; None where it is not
            cut.
    """

    node: ir.Node
    out: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    heads: tuple[int, int] | None


def _linear(node: ir.Node) -> _Linear:
    out, bias = node.outputs[0], None
    add = single_use(out, "Add", 0) or single_use(out, "Add", 1)
    if add is not None:
        other = next(value for value in add.inputs if value is not out)
        if constant_rank(other) == 1:
            bias, out = constant(other), add.outputs[0]
    weight = constant(node.inputs[1])
    assert weight is not None  # noqa: S101  # it has a rank
    return _Linear(node, out, weight, bias, _heads(out))


def _heads(value: ir.Value) -> tuple[int, int] | None:
    split = single_use(value, "Reshape", 0)
    shape = None if split is None else split.outputs[0].shape
    if shape is None or len(shape) != IN_HEADS:
        return None
    count, size = shape[2], shape[3]
    return (count, size) if isinstance(count, int) and isinstance(size, int) else None


def _pack(graph: ir.Graph, group: Sequence[_Linear]) -> None:
    heads = group[0].heads if len({each.heads for each in group}) == 1 else None
    build, name = Builder(graph, group[0].node), present(group[0].node.inputs[1]).name
    weight = build.constant(f"{name}_packed", _side_by_side([g.weight for g in group], heads))
    packed = build.node("MatMul", [group[0].node.inputs[0], weight])
    if any(each.bias is not None for each in group):
        zeros = [np.zeros(each.weight.shape[1], np.float32) for each in group]
        biases = [zero if g.bias is None else g.bias for g, zero in zip(group, zeros, strict=True)]
        bias = build.constant(f"{name}_packed_bias", _side_by_side(biases, heads))
        packed = build.node("Add", [packed, bias])
    sizes, axis = build.ints(*(each.weight.shape[1] for each in group)), 2
    if heads is not None:
        packed = build.node("Reshape", [packed, build.ints(0, 0, heads[0], PARTS, heads[1])])
        sizes, axis = build.ints(*[1] * PARTS), 3
    split = ir.node("Split", [packed, sizes], {"axis": axis}, num_outputs=PARTS)
    build.add(split)
    for each, part in zip(group, split.outputs, strict=True):
        flat = part if heads is None else build.node("Reshape", [part, build.ints(0, 0, -1)])
        build.replace(each.out, flat)


def _side_by_side(
    parts: Sequence[NDArray[np.float32]], heads: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Matrices or vectors joined along the last axis; head by head where the heads are the same."""
    if heads is None:
        return np.concatenate(parts, axis=-1)
    apart = [part.reshape(*part.shape[:-1], *heads) for part in parts]
    return np.stack(apart, axis=-2).reshape(*parts[0].shape[:-1], -1)


@dataclass(frozen=True)
class Packed:
    """Queries, keys and values of the same heads, from one product.

    Attributes:
        product: The packed product ``[batch, sequence, heads, 3, head size]``, without the bias.
        bias: The bias ``[3 heads head size]``, all queries' first; None where there is none.
    """

    product: ir.Value
    bias: NDArray[np.float32] | None


def find_packed(queries: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Node | None:
    """The split that gives the three of them, ``[batch, sequence, hidden]`` each, or None."""
    parts = [producer(value, "Reshape") for value in (queries, keys, values)]
    outs = [present(part.inputs[0]) for part in parts if part is not None]
    split = producer(outs[0], "Split") if len(outs) == PARTS else None
    return split if split is not None and list(split.outputs) == outs else None


def take_packed(build: Builder, split: ir.Node) -> Packed:
    """What a split of `find_packed` splits, with the bias apart."""
    shaped = present(present(split.inputs[0]).producer())
    whole, sizes = present(shaped.inputs[0]), shaped.inputs[1]
    add = producer(whole, "Add")
    if add is None:
        return Packed(present(split.inputs[0]), None)
    product = build.node("Reshape", [add.inputs[0], sizes])
    together = present(constant(add.inputs[1]))
    heads, size = (int(n) for n in present(constant(sizes))[[2, 4]])
    apart = together.reshape(heads, PARTS, size).swapaxes(0, 1).reshape(-1)
    return Packed(product, apart)
