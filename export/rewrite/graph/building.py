"""Builds the nodes that take the place of others, before a node of the graph."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fmrt.export.rewrite.graph.walking import RMS_NORM, TOKENS_AXES, present, producer, shape_of

# Axes of [batch, sequence, heads, head size], and of what that becomes, in a transposition's order.
HEADS_OUTSIDE = (0, 2, 1, 3)
LAST_TWO_EXCHANGED = (0, 1, 3, 2)


class Builder:
    """Inserts nodes before one node.

    Args:
        graph: The graph to change.
        place: The node that stays after everything that is built.
    """

    def __init__(self, graph: ir.Graph, place: ir.Node) -> None:
        self._graph = graph
        self._place = place
        self._branches = itertools.count()

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | Sequence[int]] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node, and return its only output."""
        return self.add(ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain))

    def add(self, *nodes: ir.Node) -> ir.Value:
        """Insert nodes, and return the first output of the last one."""
        self._graph.insert_before(self._place, list(nodes))
        return nodes[-1].outputs[0]

    def choose(
        self, condition: ir.Value, then: Sequence[ir.Node], otherwise: Sequence[ir.Node]
    ) -> ir.Value:
        """Insert an ``If``; the result is the first output of the last node of one branch.

        Args:
            condition: A boolean scalar.
            then: The nodes of one branch, in topological order; they may read any value before the
                place.
            otherwise: The nodes of the other branch, likewise.
        """
        branches = {"then_branch": self._branch(then), "else_branch": self._branch(otherwise)}
        attributes = [ir.AttrGraph(name, graph) for name, graph in branches.items()]
        return self.add(ir.Node("", "If", [condition], attributes))

    def choose_or_zero(self, unneeded: ir.Value, value: ir.Value) -> ir.Value:
        """A value of rank 4 that is computed only where ``unneeded`` is false; else one zero.

        What it is computed from stays in the graph, for `RemoveUnusedNodesPass` to clean up.
        """
        return self.choose(unneeded, [zero()], _copied(value))

    def _branch(self, nodes: Sequence[ir.Node]) -> ir.Graph:
        name = f"{self._place.outputs[0].name}_branch_{next(self._branches)}"
        for i, value in enumerate(value for node in nodes for value in node.outputs):
            value.name = f"{name}_{i}"
        return ir.Graph([], nodes[-1].outputs[:1], nodes=nodes, name=name)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let everything that reads ``old`` read ``new``, which takes over name, shape and type."""
        new.shape, new.type, name = old.shape, old.type, old.name
        old.name = None
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def ints(self, *values: int) -> ir.Value:
        """A constant int64 vector, shared by all who ask for the same."""
        return self._integers("ints", list(values), "_".join(map(str, values)))

    def scalar(self, value: int) -> ir.Value:
        """A constant int64 scalar."""
        return self._integers("int", value, str(value))

    def length(self, value: ir.Value | None) -> ir.Value:
        """The size of axis 1, the sequence's, an int64 scalar."""
        return self.node("Squeeze", [self.node("Shape", [value], {"start": 1, "end": 2})])

    def constant(self, name: str, content: NDArray[np.float32]) -> ir.Value:
        """A constant float tensor, shared by all who ask for the same name."""
        return self._constant(name, ir.tensor(content, name=name))

    def tokens(self, heads: ir.Value) -> ir.Value:
        """``[batch, sequence, hidden]`` of ``[batch, heads, sequence, head size]``."""
        norm = heads.producer()
        inner = norm.inputs[0] if norm is not None and norm.op_type == RMS_NORM else None
        if norm is not None and inner is not None and producer(inner, "Transpose") is not None:
            return self._normalized_tokens(norm, inner)
        turned = producer(heads, "Transpose")
        if turned is not None and tuple(turned.attributes["perm"].as_ints()) == HEADS_OUTSIDE:
            split = turned.inputs[0]
            reshape = producer(split, "Reshape")
            whole = reshape.inputs[0] if reshape is not None else None
            if whole is not None and _is_tokens(whole, heads):
                return whole
            return self.node("Reshape", [split, self.ints(0, 0, -1)])
        back = self.node("Transpose", [heads], {"perm": HEADS_OUTSIDE})
        return self.node("Reshape", [back, self.ints(0, 0, -1)])

    def _normalized_tokens(self, norm: ir.Node, heads: ir.Value) -> ir.Value:
        """The same where each head is normalized by itself, after the transposition or before."""
        shape = present(heads.shape)
        sizes = self.ints(0, 0, *(int(str(shape[axis])) for axis in (1, 3)))
        apart = self.node("Reshape", [self.tokens(heads), sizes])
        inputs, attributes = [apart, *norm.inputs[1:]], list(norm.attributes.values())
        made = self.add(ir.Node(norm.domain, norm.op_type, inputs, attributes))
        return self.node("Reshape", [made, self.ints(0, 0, -1)])

    def _integers(self, kind: str, values: int | list[int], text: str) -> ir.Value:
        name = f"rewrite_{kind}_{text.replace('-', 'minus')}"
        return self._constant(name, ir.tensor(values, dtype=ir.DataType.INT64, name=name))

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self._graph.initializers:
            value = ir.val(name, dtype=tensor.dtype, const_value=tensor)
            self._graph.initializers[name] = value
        return self._graph.initializers[name]


class Listing:
    """Makes nodes one by one, for a branch."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Append a node, and return its only output."""
        self.nodes.append(ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain))
        return self.nodes[-1].outputs[0]


def zero() -> ir.Node:
    """A branch's value of rank 4 that nobody reads."""
    return ir.node("Constant", [], {"value": ir.tensor(np.zeros((1, 1, 1, 1), np.float32))})


def _copied(value: ir.Value) -> list[ir.Node]:
    """Copies of the nodes that compute a value; inputs and constants of the graph stay shared."""
    twins: dict[ir.Value, ir.Value] = {}
    copies: list[ir.Node] = []

    def visit(needed: ir.Value) -> None:
        node = needed.producer()
        if needed in twins or node is None:
            return
        for each in node.inputs:
            if each is not None:
                visit(each)
        inputs = [twins.get(i, i) if i is not None else None for i in node.inputs]
        attributes = list(node.attributes.values())
        count = len(node.outputs)
        copies.append(ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=count))
        twins.update(zip(node.outputs, copies[-1].outputs, strict=True))

    visit(value)
    return copies


def _is_tokens(value: ir.Value, heads: ir.Value) -> bool:
    """Whether a value is ``[batch, sequence, hidden]`` with as many features as all heads."""
    shape = shape_of(value, TOKENS_AXES)
    if shape is None or heads.shape is None:
        return False
    count, size = heads.shape[1], heads.shape[3]
    return isinstance(count, int) and isinstance(size, int) and shape[2] == count * size


def summed(build: Builder, values: Sequence[ir.Value]) -> ir.Value:
    """The sum of one value or more."""
    return functools.reduce(lambda a, b: build.node("Add", [a, b]), values)


def all_queries(build: Builder, tokens: ir.Value) -> ir.Value:
    """What to expand a bias to: ``Attention`` broadcasts batch and heads, and no queries."""
    length, one = build.node("Shape", [tokens], {"start": 1, "end": 2}), build.ints(1)
    return build.node("Concat", [one, one, length, one], {"axis": 0})
