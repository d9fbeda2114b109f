"""The last layer only for the one token that pooling reads: CLS, or the last one.

Before: all tokens go through the last layer's queries, feed-forward part and norms, and one of them
is taken at the end.

After: it is taken where the last layer's keys and values leave the rest of it, so that those alone
are computed for all tokens. Nothing reads ``last_hidden_state`` then, and the graph does not have
it.

Seen from the end of the graph: a node whose every reader takes one token alone may itself work on
that token, if it works on each token by itself. From there on the same holds for the nodes before
it. Where a value has other readers too, the token is taken from it. A mask's row is written anew,
so that nothing asks for the mask of all tokens.

Gain: up to a layer's time; ``benchmarks/suites/test_choices.py::test_pooled_token`` measures it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.masks import MASK, NONE, Masking, Maskings
from fmrt.export.rewrite.graph.walking import RMS_NORM, constant, present, producer

# Nodes that work on each element alone; their inputs broadcast.
ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Cos", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Relu"}
    | {"Sigmoid", "Sin", "Softplus", "Sqrt", "Sub", "Swish", "Tanh", "Where"}
)
# Nodes that work along the last axis of their first input alone.
LAST_AXIS = frozenset({"LayerNormalization", "LogSoftmax", RMS_NORM, "Softmax"})
# Axes are counted from the end, as broadcasting aligns them: of tokens in [batch, tokens, hidden].
TOKENS = -2
RANK = 3
# The rank of a mask, [batch, heads, queries, keys].
MASK_RANK = 4
LOWEST = np.finfo(np.float32).min
# Marks the pooled token among a graph's values, for passes that treat what comes after it apart.
# It is not written to the file.
POOLED = "fmrt.pooled_token"


def compute_pooled_token_alone(model: ir.Model, embedding: str | None) -> int:
    """Apply the pass in place; returns the number of matrix products that lost their other tokens.

    Args:
        model: The graph.
        embedding: The name of the only output that is needed, and left where the pass applies; None
            when all are.
    """
    selection = _find_selection(model.graph, embedding)
    if selection is None:
        return 0
    outputs = list(model.graph.outputs)
    model.graph.outputs[:] = [value for value in outputs if value.name == embedding]
    plan = _Plan(model.graph, selection)
    products = sum(node.op_type == "MatMul" for node in plan.pulled)
    if not products or not plan.possible:
        model.graph.outputs[:] = outputs
        return 0
    _Rebuilding(model.graph, selection, plan, _masks(model, plan)).apply()
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    return products


@dataclass(frozen=True)
class _Selection:
    """Takes one token per row.

    Attributes:
        node: The node: GatherElements, with the same index for all features; or Gather, of the same
            token in every row, as for images.
        index: The index that the node reads, int64 ``[batch, 1, 1]``; or the position of that
            token.
    """

    node: ir.Node
    index: ir.Value | int


def _find_selection(graph: ir.Graph, embedding: str | None) -> _Selection | None:
    """The one selection that all of the embedding comes through, or None."""
    consumers = [value for value in graph.outputs if value.name == embedding]
    found = [_as_selection(node) for node in graph]
    selections = [s for s in found if s is not None]
    return selections[0] if len(consumers) == 1 and len(selections) == 1 else None


def _as_selection(node: ir.Node) -> _Selection | None:
    if node.domain != "" or node.op_type not in ("Gather", "GatherElements"):
        return None
    data, index = node.inputs
    along_tokens = node.attributes.get_int("axis", 0) == 1
    if data is None or data.shape is None or len(data.shape) != RANK or data.shape[1] == 1:
        return None
    place = _one_position(index) if node.op_type == "Gather" else _position_a_row(index)
    return _Selection(node, place) if along_tokens and place is not None else None


def _one_position(index: ir.Value | None) -> int | None:
    scalar = index is not None and index.shape is not None and len(index.shape) == 0
    position = _numbers(index) if scalar else None
    return position[0] if position else None


def _position_a_row(index: ir.Value | None) -> ir.Value | None:
    expand = producer(index, "Expand")
    source = expand.inputs[0] if expand is not None else None
    if source is None or source.shape is None or list(source.shape[1:]) != [1, 1]:
        return None
    return source


class _Plan:
    """Which nodes can work on the selected token alone.

    Attributes:
        pulled: The nodes, in topological order.
        axes: The axis of the tokens, from the end, of each value that is read for one token.
    """

    def __init__(self, graph: ir.Graph, selection: _Selection) -> None:
        self.axes: dict[ir.Value, int] = {present(selection.node.inputs[0]): TOKENS}
        self._reads = {(selection.node, 0)}
        self.pulled: list[ir.Node] = []
        for node in reversed(list(graph)):
            axis = self._axis_of_outputs(node)
            operands = _operands(node, axis) if axis is not None else None
            if operands is not None and self._agree(node, operands):
                self._pull(node, operands)
        self.pulled.reverse()

    @property
    def possible(self) -> bool:
        """Whether the token can be taken from every value that is left as it is."""
        return all(_can_take(value, axis) for value, axis in self.taken.items())

    @property
    def taken(self) -> dict[ir.Value, int]:
        """Values that stay as they are for others, and the axis of the tokens of each."""
        made = {value for node in self.pulled for value in node.outputs}
        return {value: axis for value, axis in self.axes.items() if value not in made}

    def _axis_of_outputs(self, node: ir.Node) -> int | None:
        """Axis of the tokens, if all that the node gives is read for one token alone."""
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        axes = {self.axes.get(value) for value in used}
        alone = len(axes) == 1 and all(map(self._only_for_one_token, used))
        return axes.pop() if alone else None

    def _only_for_one_token(self, value: ir.Value) -> bool:
        reads = {(use.node, use.idx) for use in value.uses()}
        return not value.is_graph_output() and reads <= self._reads

    def _agree(self, node: ir.Node, operands: dict[int, int]) -> bool:
        values = [(node.inputs[i], axis) for i, axis in operands.items()]
        return all(v is not None and self.axes.get(v, axis) == axis for v, axis in values)

    def _pull(self, node: ir.Node, operands: dict[int, int]) -> None:
        self.pulled.append(node)
        for i, axis in operands.items():
            self.axes[present(node.inputs[i])] = axis
            self._reads.add((node, i))


def _can_take(value: ir.Value, axis: int) -> bool:
    """Whether it has rows before the tokens, or is the same for all rows."""
    if value.shape is None or len(value.shape) + axis < 1:
        return False
    return value.shape[0] == 1 or not isinstance(value.shape[0], int)


def _operands(node: ir.Node, axis: int) -> dict[int, int] | None:
    """Inputs that have the tokens, with their axis, if the node works on each token by itself."""
    if node.domain != "" or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type in ELEMENTWISE:
        return {i: axis for i, value in enumerate(node.inputs) if _spans(value, axis)}
    rule = _RULES.get(node.op_type)
    return rule(node, axis) if rule is not None else None


def _product(_: ir.Node, axis: int) -> dict[int, int] | None:
    return {0: axis} if axis == TOKENS else None


def _along_last_axis(node: ir.Node, axis: int) -> dict[int, int] | None:
    return {0: axis} if axis != -1 and node.attributes.get_int("axis", -1) == -1 else None


def _reduced(node: ir.Node, axis: int) -> dict[int, int] | None:
    last = _names_last(node, 1) and node.attributes.get_int("keepdims", 1) == 1
    return {0: axis} if axis != -1 and last else None


def _joined(node: ir.Node, axis: int) -> dict[int, int] | None:
    along = node.attributes.get_int("axis", 0)
    return dict.fromkeys(range(len(node.inputs)), axis) if along == -1 != axis else None


def _sliced(node: ir.Node, axis: int) -> dict[int, int] | None:
    return {0: axis} if axis != -1 and _names_last(node, 3) else None


def _split(node: ir.Node, axis: int) -> dict[int, int] | None:
    return {0: axis} if axis != -1 == _from_end(node, node.attributes.get_int("axis", 0)) else None


def _from_end(node: ir.Node, axis: int) -> int:
    return axis if axis < 0 else axis - _rank(node.inputs[0])


def _transposed(node: ir.Node, axis: int) -> dict[int, int] | None:
    order = node.attributes.get_ints("perm", [])
    return {0: order[axis] - len(order)} if order else None


def _spans(value: ir.Value | None, axis: int) -> bool:
    """Whether an elementwise node's input has the tokens, or is the same for all of them."""
    if value is None:
        return False
    if value.shape is None:
        return True
    return len(value.shape) >= -axis and value.shape[axis] != 1


def _names_last(node: ir.Node, place: int) -> bool:
    """Whether the axes in an input are the last one of the first input alone."""
    axes = _numbers(node.inputs[place]) if len(node.inputs) > place else None
    return axes in ([-1], [_rank(node.inputs[0]) - 1])


def _reshaped(node: ir.Node, axis: int) -> dict[int, int] | None:
    """A reshape that leaves the axes up to the tokens' as they are."""
    (before, after) = (node.inputs[0], node.outputs[0])
    if before is None or before.shape is None or after.shape is None:
        return None
    place = len(after.shape) + axis
    ends = list(after.shape)[place + 1 :]
    same = list(before.shape)[: place + 1] == list(after.shape)[: place + 1]
    if place < 1 or not same or not all(isinstance(size, int) for size in ends):
        return None
    return {0: place - len(before.shape)}


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else 0


def _numbers(value: ir.Value | None) -> list[int] | None:
    content = constant(value)
    return None if content is None else [int(x) for x in content.reshape(-1)]


_RULES: Mapping[str, Callable[[ir.Node, int], dict[int, int] | None]] = {
    **dict.fromkeys(LAST_AXIS, _along_last_axis),
    "Concat": _joined,
    "MatMul": _product,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Split": _split,
    "Transpose": _transposed,
}


def _masks(model: ir.Model, plan: _Plan) -> dict[ir.Value, Masking]:
    """What the masks hide that a row of is taken from, where that can be said by positions."""
    if all(value.name != MASK for value in model.graph.inputs):
        return {}
    maskings = Maskings(model)
    found = {v: maskings.of([v]) for v, axis in plan.taken.items() if _is_mask(v, axis)}
    return {v: masking for v, masking in found.items() if masking is not None and masking != NONE}


def _is_mask(value: ir.Value, axis: int) -> bool:
    """Whether a value has the form of a mask: one for all heads, one row per query."""
    alike = axis == TOKENS and _rank(value) == MASK_RANK and value.dtype == ir.DataType.FLOAT
    return alike and value.shape is not None and value.shape[1] == 1


class _Rebuilding:
    """Copies of the pulled nodes that work on one token."""

    def __init__(
        self,
        graph: ir.Graph,
        selection: _Selection,
        plan: _Plan,
        masks: Mapping[ir.Value, Masking],
    ) -> None:
        self._selection = selection
        self._plan = plan
        self._masks = masks
        self._mask = next((v for v in graph.inputs if v.name == MASK), None)
        self._one: dict[ir.Value, ir.Value] = {}
        # The selection's index may be computed after the nodes that need it now.
        self._build = Builder(graph, selection.node)

    def apply(self) -> None:
        """Put the copies before the selection, which they replace."""
        for node in self._plan.pulled:
            self._copy(node)
        node = self._selection.node
        token = self._one_token(node.inputs[0])
        if node.op_type == "Gather":
            token = self._build.node("Squeeze", [token, self._build.ints(1)])
        self._build.replace(node.outputs[0], token)
        token.meta[POOLED] = True

    def _copy(self, node: ir.Node) -> None:
        axis = next(self._plan.axes[v] for v in node.outputs if v in self._plan.axes)
        if node.op_type == "Reshape":
            self._one[node.outputs[0]] = self._reshaped(node, axis)
            return
        operands = _operands(node, axis) or {}
        inputs = [
            self._one_token(value) if i in operands else value
            for i, value in enumerate(node.inputs)
        ]
        attributes, count = list(node.attributes.values()), len(node.outputs)
        copy = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=count)
        self._build.add(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            self._describe(new, old, axis)
            self._one[old] = new

    def _reshaped(self, node: ir.Node, axis: int) -> ir.Value:
        old = node.outputs[0]
        shape = list(present(old.shape))
        place = len(shape) + axis
        sizes = [0] * place + [1] + [int(str(n)) for n in shape[place + 1 :]]
        new = self._build.node(
            "Reshape", [self._one_token(node.inputs[0]), self._build.ints(*sizes)]
        )
        self._describe(new, old, axis)
        return new

    def _describe(self, new: ir.Value, old: ir.Value, axis: int) -> None:
        """Type and shape of what a value is for one token: the axis of tokens is 1 long."""
        new.type = old.type
        if old.shape is None:
            return
        shape = list(old.shape)
        shape[axis] = 1
        index = self._selection.index
        if shape[0] == 1 and isinstance(index, ir.Value):
            shape[0] = present(index.shape)[0]  # each row has a token of its own
        new.shape = ir.Shape(shape)

    def _one_token(self, operand: ir.Value | None) -> ir.Value:
        """The value for the selected token, the axis of tokens being 1 long."""
        value = present(operand)
        if value not in self._one:
            axis = self._plan.axes[value]
            self._one[value] = self._take(value, axis)
            self._describe(self._one[value], value, axis)
        return self._one[value]

    def _take(self, value: ir.Value, axis: int) -> ir.Value:
        if value in self._masks:
            return self._row(self._masks[value])
        rank, build = self._rank_of(value), self._build
        place, index = rank + axis, self._selection.index
        if isinstance(index, int):
            return build.node("Gather", [value, build.ints(index)], {"axis": place})
        if value.shape is not None and value.shape[0] == 1:  # the same for all rows
            rows = build.node("Reshape", [index, build.ints(-1)])
            order = list(range(rank))
            order[0], order[place] = place, 0
            taken = build.node("Gather", [value, rows], {"axis": place})
            return build.node("Transpose", [taken], {"perm": order})
        sizes = build.node("Shape", [value])
        ones = build.ints(1)
        ends = [
            build.node("Slice", [sizes, build.ints(a), build.ints(b)])
            for a, b in ((1, place), (place + 1, rank))
            if b > a
        ]
        parts = [ones, *ends[: int(place > 1)], ones, *ends[int(place > 1) :]]
        shape = build.node("Concat", parts, {"axis": 0})
        rows = build.node("Reshape", [index, build.ints(-1, *[1] * (rank - 1))])
        expanded = build.node("Expand", [rows, shape])
        return build.node("GatherElements", [value, expanded], {"axis": place})

    def _row(self, masking: Masking) -> ir.Value:
        """What a mask hides from the selected token, float32 ``[batch, 1, 1, keys]``."""
        build, mask = self._build, self._mask
        length = build.length(mask)
        positions = build.node("Range", [build.scalar(0), length, build.scalar(1)])
        index = self._selection.index
        if isinstance(index, int):
            index = build.node("Reshape", [build.ints(index), build.ints(1, 1, 1)])
        apart = build.node("Sub", [positions, index])
        real = build.node("Cast", [mask], {"to": ir.DataType.BOOL})
        allowed = [build.node("Unsqueeze", [real, build.ints(1)])] if masking.padding else []
        if masking.before is not None:
            allowed.append(build.node("GreaterOrEqual", [apart, build.scalar(-masking.before)]))
        if masking.after is not None:
            allowed.append(build.node("LessOrEqual", [apart, build.scalar(masking.after)]))
        every = functools.reduce(lambda a, b: build.node("And", [a, b]), allowed)
        zero = build.constant("rewrite_zero", np.array(0, np.float32))
        lowest = build.constant("rewrite_lowest", np.array(LOWEST, np.float32))
        row = build.node("Where", [every, zero, lowest])
        return build.node("Unsqueeze", [row, build.ints(1)])

    def _rank_of(self, value: ir.Value) -> int:
        return len(present(value.shape))
