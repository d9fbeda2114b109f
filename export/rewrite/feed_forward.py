"""Finds the feed-forward part of a layer: all between two values that works on each row by itself.

A row is what is on the last axis, such as a token's features. From a product with constant weights
back, through activations, gates, splits and other such products, to the one value that all of it
comes from; where residual sum and norms around it read nothing else, with those. A gate, a packed
projection and a plain pair of products are all found alike. Experts are not: which rows go where is
no work on a row by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from export.rewrite.pooled_token import ELEMENTWISE
from export.rewrite.walking import RMS_NORM, constant

NORMS = frozenset({"LayerNormalization", RMS_NORM})
PRODUCTS = frozenset({"Gemm", "MatMul"})
# Rank of a weight, and of the rows where all axes in front of the last are joined.
MATRIX = 2
BIAS = 2


@dataclass(frozen=True)
class Form:
    """Of a value of rows.

    Attributes:
        axes: sizes of those in front of the last, where there are several.
        features: size of the last one.
    """

    axes: tuple[object, ...]
    features: int


@dataclass(frozen=True)
class Part:
    """Nodes that compute one value of another, row by row.

    Attributes:
        entry: what they read beside constants.
        end: what others read of it.
        nodes: in topological order.
        features: of ``entry`` and ``end``.
        flat: whether these have one axis in front of the last.
    """

    entry: ir.Value
    end: ir.Value
    nodes: tuple[ir.Node, ...]
    features: tuple[int, int]
    flat: bool


def feed_forward_parts(graph: ir.Graph) -> list[Part]:
    """Those that are wider inside than at their ends, in the graph's order, none overlapping."""
    finder, parts = _Finder(graph), []
    taken: set[ir.Node] = set()
    for node in graph:
        part = finder.part(node)
        if part is not None and taken.isdisjoint(part.nodes):
            parts.append(part)
            taken.update(part.nodes)
    return parts


class _Finder:
    def __init__(self, graph: ir.Graph) -> None:
        self._places = {node: place for place, node in enumerate(graph)}
        self._forms: dict[ir.Value, Form] = {}
        self._operands: dict[ir.Node, list[ir.Value]] = {}
        for value in graph.inputs:
            self._learn(value, None)
        for node in graph:
            self._visit(node)

    def part(self, down: ir.Node) -> Part | None:
        """What ends in a product, and in the sums and norms behind it; None where that is none."""
        if down not in self._operands or not is_product(down):
            return None
        nodes = {down}
        entry = self._entry(nodes, set(self._operands[down]), need=True)
        if entry is None or not self._widens(nodes, down) or not _closed(nodes, down.outputs[0]):
            return None
        end = down.outputs[0]
        while (larger := self._grown(nodes, entry, end)) is not None:
            nodes, entry, end = larger
        ordered = tuple(sorted(nodes, key=self._places.__getitem__))
        before, after = self._forms[entry], self._forms[end]
        features = before.features, after.features
        return Part(entry, end, ordered, features, flat=not before.axes)

    def _entry(
        self, nodes: set[ir.Node], frontier: set[ir.Value], *, need: bool = False
    ) -> ir.Value | None:
        """The one value that all of ``frontier`` comes from; what is between is put into ``nodes``.

        Args:
            nodes: so far.
            frontier: what they read.
            need: whether a product has to be between, which else may not be.
        """
        while need or len(frontier) > 1:
            latest = max(frontier, key=self._place)
            node = latest.producer()
            if node is None or node not in self._operands or (is_product(node) and not need):
                return None
            nodes.add(node)
            frontier = (frontier - set(node.outputs)) | set(self._operands[node])
            need = need and (len(frontier) > 1 or not is_product(node))
        (entry,) = frontier
        return entry if entry in self._forms else None

    def _place(self, value: ir.Value) -> int:
        node = value.producer()
        return -1 if node is None else self._places[node]

    def _grown(
        self, nodes: set[ir.Node], entry: ir.Value, end: ir.Value
    ) -> tuple[set[ir.Node], ir.Value, ir.Value] | None:
        """A part with the node behind it too, and what that needs in front; None if it cannot."""
        readers = {use.node for use in end.uses()}
        if len(readers) != 1 or end.is_graph_output():
            return None
        (node,) = readers
        if node not in self._operands or is_product(node) or len(node.outputs) > 1:
            return None
        others = [value for value in self._operands[node] if value is not end]
        larger = nodes | {node}
        start = self._entry(larger, {entry, *others})
        if start is None or not _closed(larger, node.outputs[0]):
            return None
        return larger, start, node.outputs[0]

    def _widens(self, nodes: Iterable[ir.Node], down: ir.Node) -> bool:
        """Whether something inside is wider than what goes in, and than what comes out."""
        out = _weight_sizes(down)[1]
        sizes = [_weight_sizes(node) for node in nodes if is_product(node) and node is not down]
        return any(columns > max(features, out) for features, columns in sizes)

    def _visit(self, node: ir.Node) -> None:
        operands = self._row_operands(node)
        if operands:
            self._operands[node] = operands
        for value in node.outputs:
            self._learn(value, self._form(node, operands) if operands else None)

    def _learn(self, value: ir.Value, computed: Form | None) -> None:
        form = _known(value) or computed
        if form is not None:
            self._forms[value] = form

    def _row_operands(self, node: ir.Node) -> list[ir.Value]:
        """What a node reads that it works on row by row; nothing where it does not."""
        if node.domain != "":
            return []
        rows = [v for v in node.inputs if v is not None and constant(v) is None]
        if not rows or any(value not in self._forms for value in rows):
            return []
        if node.op_type in ELEMENTWISE:
            return rows if self._alike(rows) and all(map(_fits_rows, node.inputs)) else []
        alone = len(rows) == 1 and rows[0] is node.inputs[0]
        if alone and (is_product(node) or self._along_last_axis(node, rows[0])):
            return rows
        return []

    def _alike(self, values: Iterable[ir.Value]) -> bool:
        return len({self._forms[value].axes for value in values}) == 1

    def _along_last_axis(self, node: ir.Node, value: ir.Value) -> bool:
        if node.op_type not in NORMS and node.op_type != "Split":
            return False
        axes = self._forms[value].axes
        last = len(axes) if axes else 1
        default = -1 if node.op_type in NORMS else 0
        return node.attributes.get_int("axis", default) in (-1, last)

    def _form(self, node: ir.Node, operands: list[ir.Value]) -> Form | None:
        """Of what such a node gives, where its shape does not say."""
        axes = self._forms[operands[0]].axes
        features = max(self._forms[value].features for value in operands)
        if is_product(node):
            return Form(axes, _weight_sizes(node)[1])
        if node.op_type == "Split":
            several = len(node.outputs)
            even = len(node.inputs) == 1 and features % several == 0
            return Form(axes, features // several) if even else None
        return Form(axes, features)


def is_product(node: ir.Node) -> bool:
    """Whether a node multiplies rows with a constant matrix, and adds at most a constant vector."""
    if node.domain != "" or node.op_type not in PRODUCTS:
        return False
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != MATRIX or node.attributes.get_int("transA", 0) != 0:
        return False
    return all(map(_fits_rows, node.inputs[BIAS:]))


def _weight_sizes(product: ir.Node) -> tuple[int, int]:
    """Features that a product takes, and gives."""
    weight = product.inputs[1]
    assert weight is not None and weight.shape is not None  # noqa: S101, PT018  # by `is_product`
    features, columns = (int(str(size)) for size in weight.shape)
    return (columns, features) if product.attributes.get_int("transB", 0) else (features, columns)


def _fits_rows(value: ir.Value | None) -> bool:
    """Whether an input, if it is a constant, is the same for all rows."""
    content = constant(value)
    return content is None or content.ndim < MATRIX


def _known(value: ir.Value) -> Form | None:
    """What a value's shape says, or that of the matrix that a ``Reshape`` or ``Gemm`` makes."""
    shape = _shape(value)
    if shape is None or len(shape) < MATRIX or not isinstance(shape[-1], int):
        return None
    axes = tuple(shape[:-1]) if len(shape) > MATRIX else ()
    if any(isinstance(size, ir.SymbolicDim) and size.value is None for size in axes):
        return None
    return Form(axes, shape[-1])


def _shape(value: ir.Value) -> list[object] | None:
    if value.shape is not None:
        return list(value.shape)
    node = value.producer()
    sizes = constant(node.inputs[1]) if node is not None and node.op_type == "Reshape" else None
    if sizes is None or len(sizes) != MATRIX or sizes[-1] < 1:
        return None
    return [int(size) for size in sizes]


def _closed(nodes: set[ir.Node], end: ir.Value) -> bool:
    """Whether nobody else reads what is computed between."""
    inner = (value for node in nodes for value in node.outputs if value is not end)
    return all(
        not value.is_graph_output() and all(use.node in nodes for use in value.uses())
        for value in inner
    )
