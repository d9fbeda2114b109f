"""Builds the nodes that take the place of others, in front of a node of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from export.rewrite.walking import producer

HEADS_OUTSIDE = (0, 2, 1, 3)


class Builder:
    """Inserts nodes in front of one node.

    Args:
        graph: to change.
        place: stays behind everything that is built.
    """

    def __init__(self, graph: ir.Graph, place: ir.Node) -> None:
        self._graph = graph
        self._place = place

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | Sequence[int]] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node, and return its only output."""
        made = ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain)
        self._graph.insert_before(self._place, made)
        return made.outputs[0]

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

    def tokens(self, heads: ir.Value) -> ir.Value:
        """``[batch, sequence, hidden]`` of ``[batch, heads, sequence, head size]``."""
        turned = producer(heads, "Transpose")
        if turned is not None and tuple(turned.attributes["perm"].as_ints()) == HEADS_OUTSIDE:
            split = turned.inputs[0]
            reshape = producer(split, "Reshape")
            whole = reshape.inputs[0] if reshape is not None else None
            if whole is not None and _is_tokens(whole, heads):
                return whole
            assert split is not None  # noqa: S101  # Transpose has an input
            return self.node("Reshape", [split, self.ints(0, 0, -1)])
        back = self.node("Transpose", [heads], {"perm": HEADS_OUTSIDE})
        return self.node("Reshape", [back, self.ints(0, 0, -1)])

    def _integers(self, kind: str, values: int | list[int], text: str) -> ir.Value:
        name = f"cuda_{kind}_{text.replace('-', 'minus')}"
        if name not in self._graph.initializers:
            tensor = ir.tensor(values, dtype=ir.DataType.INT64, name=name)
            value = ir.val(name, dtype=ir.DataType.INT64, const_value=tensor)
            self._graph.initializers[name] = value
        return self._graph.initializers[name]


def _is_tokens(value: ir.Value, heads: ir.Value) -> bool:
    """Whether a value is ``[batch, sequence, hidden]`` with as many features as all heads."""
    if value.shape is None or heads.shape is None or len(value.shape) != 3:  # noqa: PLR2004
        return False
    count, size = heads.shape[1], heads.shape[3]
    return isinstance(count, int) and isinstance(size, int) and value.shape[2] == count * size
