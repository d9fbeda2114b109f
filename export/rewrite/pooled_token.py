"""The last layer only for the one token that pooling reads: CLS, or the last one.

Before: all tokens go through the last layer's queries, feed-forward part and norms, and one of them
is taken at the end.

After: it is taken where the last layer's keys and values leave the rest of it, so that those alone
are computed for all tokens. Nothing reads ``last_hidden_state`` then, and the graph does not have
it.

Seen from the end of the graph: a node whose every reader takes one token alone may itself work on
that token, if it works on each token by itself. From there on the same holds for the nodes in front
of it. Where a value has other readers too, the token is taken from it.

Gain: up to a layer's time; ``benchmarks/test_choices.py::test_pooled_token`` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

# Nodes that work on each element alone; their inputs broadcast.
ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Cos", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Relu"}
    | {"Sigmoid", "Sin", "Softplus", "Sqrt", "Sub", "Swish", "Tanh", "Where"}
)
# Nodes that work along the last axis of their first input alone.
LAST_AXIS = frozenset({"LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax"})
# Axes are counted from the end, as broadcasting aligns them: of tokens in [batch, tokens, hidden].
TOKENS = -2
RANK = 3


def compute_pooled_token_alone(model: ir.Model, embedding: str | None) -> int:
    """Apply the pass in place; returns the number of matrix products that lost their other tokens.

    Args:
        model: behind `fuse_attention`, in front of `projections_to_gemm`.
        embedding: name of the only output that is needed, and left where the pass applies; None
            when all are.
    """
    selection = _find_selection(model.graph, embedding)
    if selection is None:
        return 0
    outputs = list(model.graph.outputs)
    model.graph.outputs[:] = [value for value in outputs if value.name == embedding]
    plan = _Plan(model.graph, selection)
    products = sum(node.op_type in ("MatMul", "If") for node in plan.pulled)
    if not products or not plan.possible:
        model.graph.outputs[:] = outputs
        return 0
    _Rebuilding(model.graph, selection, plan).apply()
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    return products


@dataclass(frozen=True)
class _Selection:
    """Takes one token a row.

    Attributes:
        node: GatherElements, with the same index for all features.
        index: that, int64 ``[batch, 1, 1]``.
    """

    node: ir.Node
    index: ir.Value


def _find_selection(graph: ir.Graph, embedding: str | None) -> _Selection | None:
    """The one selection that all of the embedding comes through, or None."""
    consumers = [value for value in graph.outputs if value.name == embedding]
    found = [_as_selection(node) for node in graph]
    selections = [s for s in found if s is not None]
    return selections[0] if len(consumers) == 1 and len(selections) == 1 else None


def _as_selection(node: ir.Node) -> _Selection | None:
    if node.domain != "" or node.op_type != "GatherElements":
        return None
    data, index = node.inputs
    expand = index.producer() if index is not None else None
    if data is None or data.shape is None or len(data.shape) != RANK or expand is None:
        return None
    source = expand.inputs[0] if expand.op_type == "Expand" else None
    if source is None or source.shape is None or list(source.shape[1:]) != [1, 1]:
        return None
    along_tokens = node.attributes.get_int("axis", 0) == 1
    return _Selection(node, source) if along_tokens else None


class _Plan:
    """Which nodes can work on the selected token alone.

    Attributes:
        pulled: them, in topological order.
        axes: axis of the tokens, from the end, of each value that is read for one token.
    """

    def __init__(self, graph: ir.Graph, selection: _Selection) -> None:
        (data, *_) = selection.node.inputs
        assert data is not None  # noqa: S101  # seen by `_as_selection`
        self.axes: dict[ir.Value, int] = {data: TOKENS}
        self._reads = {(selection.node, 0)}
        self.pulled: list[ir.Node] = []
        for node in reversed(list(graph)):
            (value, *others) = node.outputs
            if others or value not in self.axes or not self._only_for_one_token(value):
                continue
            operands = _operands(node, self.axes[value])
            if operands is not None and self._agree(node, operands):
                self._pull(node, operands)
        self.pulled.reverse()

    @property
    def possible(self) -> bool:
        """Whether the token can be taken from every value that is left as it is."""
        made = {value for node in self.pulled for value in node.outputs}
        return all(_can_take(v, axis) for v, axis in self.axes.items() if v not in made)

    def _only_for_one_token(self, value: ir.Value) -> bool:
        reads = {(use.node, use.idx) for use in value.uses()}
        return not value.is_graph_output() and reads <= self._reads

    def _agree(self, node: ir.Node, operands: dict[int, int]) -> bool:
        values = [(node.inputs[i], axis) for i, axis in operands.items()]
        if node.op_type == "If":
            values = [(_attention(node).inputs[0], TOKENS)]
        return all(v is not None and self.axes.get(v, axis) == axis for v, axis in values)

    def _pull(self, node: ir.Node, operands: dict[int, int]) -> None:
        self.pulled.append(node)
        if node.op_type == "If":
            query = _attention(node).inputs[0]
            assert query is not None  # noqa: S101  # `_agree` has seen it
            self.axes[query] = TOKENS
            self._reads |= {(use.node, 0) for use in query.uses() if _is_attention(use.node)}
            return
        for i, axis in operands.items():
            value = node.inputs[i]
            assert value is not None  # noqa: S101  # as above
            self.axes[value] = axis
            self._reads.add((node, i))


def _can_take(value: ir.Value, axis: int) -> bool:
    """Whether it has rows in front of the tokens, or is the same for all rows."""
    if value.shape is None or len(value.shape) + axis < 1:
        return False
    return value.shape[0] == 1 or not isinstance(value.shape[0], int)


def _operands(node: ir.Node, axis: int) -> dict[int, int] | None:
    """Inputs that have the tokens, with their axis, if the node works on each token by itself."""
    if node.op_type == "If":
        return {} if axis == TOKENS and _has_fused_attention(node) else None
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
    axes = _constant(node.inputs[place]) if len(node.inputs) > place else None
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


def _constant(value: ir.Value | None) -> list[int] | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else [int(x) for x in tensor.numpy().reshape(-1)]


_RULES: Mapping[str, Callable[[ir.Node, int], dict[int, int] | None]] = {
    **dict.fromkeys(LAST_AXIS, _along_last_axis),
    "Concat": _joined,
    "MatMul": _product,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Transpose": _transposed,
}


def _is_attention(node: ir.Node) -> bool:
    return node.op_type == "MultiHeadAttention"


def _has_fused_attention(node: ir.Node) -> bool:
    branch = node.attributes.get("else_branch")
    nodes = list(branch.as_graph()) if branch is not None else []
    return len(nodes) == 1 and _is_attention(nodes[0])


def _attention(node: ir.Node) -> ir.Node:
    """The form of `fuse_attention`'s node that masks padding."""
    return next(iter(node.attributes["else_branch"].as_graph()))


class _Rebuilding:
    """Copies of the pulled nodes that work on one token."""

    def __init__(self, graph: ir.Graph, selection: _Selection, plan: _Plan) -> None:
        self._graph = graph
        self._selection = selection
        self._plan = plan
        self._one: dict[ir.Value, ir.Value] = {}
        # The selection's index may be computed behind the nodes that need it now.
        self._place = selection.node

    def apply(self) -> None:
        """Put the copies in front of the selection, which they replace."""
        for node in self._plan.pulled:
            self._copy(node)
        node = self._selection.node
        (data, *_) = node.inputs
        assert data is not None  # noqa: S101  # seen by `_as_selection`
        taken = self._one_token(data)
        old = node.outputs[0]
        taken.shape, taken.type, name = old.shape, old.type, old.name
        old.name = None
        taken.name = name
        old.replace_all_uses_with(taken, replace_graph_outputs=True)

    def _copy(self, node: ir.Node) -> None:
        old = node.outputs[0]
        axis = self._plan.axes[old]
        if node.op_type == "If":
            attention = _attention(node)
            query, *others = attention.inputs
            assert query is not None  # noqa: S101  # the plan has it
            inputs: list[ir.Value | None] = [self._one_token(query), *others]
            attributes = list(attention.attributes.values())
            new = self._add("MultiHeadAttention", inputs, attributes, attention.domain)
        elif node.op_type == "Reshape":
            (value, _) = node.inputs
            assert old.shape is not None  # noqa: S101  # `_reshaped` has seen it
            place = len(old.shape) + axis
            sizes = [0] * place + [1] + [int(str(n)) for n in list(old.shape)[place + 1 :]]
            new = self._add("Reshape", [self._one_token(value), self._ints(sizes)])
        else:
            operands = _operands(node, axis) or {}
            inputs = [
                self._one_token(value) if i in operands else value
                for i, value in enumerate(node.inputs)
            ]
            new = self._add(node.op_type, inputs, list(node.attributes.values()), node.domain)
        new.type = old.type
        self._one[old] = new

    def _one_token(self, value: ir.Value | None) -> ir.Value:
        """The value for the selected token, the axis of tokens being 1 long."""
        assert value is not None  # noqa: S101  # the plan has looked at it
        if value not in self._one:
            self._one[value] = self._take(value, self._plan.axes[value])
            self._one[value].type = value.type
        return self._one[value]

    def _take(self, value: ir.Value, axis: int) -> ir.Value:
        rank = self._rank_of(value)
        place, index = rank + axis, self._selection.index
        along = [ir.AttrInt64("axis", place)]
        if value.shape is not None and value.shape[0] == 1:  # the same for all rows
            rows = self._add("Reshape", [index, self._ints([-1])])
            order = list(range(rank))
            order[0], order[place] = place, 0
            taken = self._add("Gather", [value, rows], along)
            return self._add("Transpose", [taken], [ir.AttrInt64s("perm", order)])
        sizes = self._add("Shape", [value])
        ones = self._ints([1])
        ends = [
            self._add("Slice", [sizes, self._ints([a]), self._ints([b])])
            for a, b in ((1, place), (place + 1, rank))
            if b > a
        ]
        parts = [ones, *ends[: int(place > 1)], ones, *ends[int(place > 1) :]]
        shape = self._add("Concat", parts, [ir.AttrInt64("axis", 0)])
        rows = self._add("Reshape", [index, self._ints([-1] + [1] * (rank - 1))])
        return self._add("GatherElements", [value, self._add("Expand", [rows, shape])], along)

    def _rank_of(self, value: ir.Value) -> int:
        assert value.shape is not None  # noqa: S101  # `_Plan` refuses others
        return len(value.shape)

    def _add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (),
        domain: str = "",
    ) -> ir.Value:
        node = ir.Node(domain, op_type, inputs, attributes)
        self._graph.insert_before(self._place, node)
        return node.outputs[0]

    def _ints(self, values: Sequence[int]) -> ir.Value:
        name = "pooled_token_" + "_".join(map(str, values)).replace("-", "minus")
        if name not in self._graph.initializers:
            tensor = ir.tensor(list(values), dtype=ir.DataType.INT64, name=name)
            value = ir.val(name, dtype=ir.DataType.INT64, const_value=tensor)
            self._graph.initializers[name] = value
        return self._graph.initializers[name]
