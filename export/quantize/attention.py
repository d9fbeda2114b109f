"""Attention by one path, so that padding does not move a value over the edge of a rounding step.

Before: an ``If`` with flash attention for long texts without padding, and ``Attention`` with the
padding as bias for others (see `fmrt.export.rewrite.fused_attention`). Both are right, and their
last bits differ; where a value is rounded to 8 bits after them, that can become a whole step.

After: ``Attention`` alone, whatever the batch. Sums run over the keys in their order, and what
padding adds to them is zero, so the result for a text is the same to the last bit with padding and
without.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

# Place of the bias among the inputs of ``Attention``.
BIAS = 3
NAMES = ("then_branch", "else_branch")
BOTH = (["MultiHeadAttention"], ["Attention"])


def attend_by_one_path(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of layers changed."""
    layers = [node for node in model.graph if _branches(node) == BOTH]
    biases: set[ir.Node] = set()
    for layer in layers:
        bias = layer.attributes["else_branch"].as_graph().node(0).inputs[BIAS]
        chosen = bias.producer() if bias is not None else None
        if chosen is not None and chosen.op_type == "If":
            biases.add(chosen)
    for node in [node for node in model.graph if node in biases or node in layers]:
        _take_other_branch(model.graph, node)
    if layers:
        RemoveUnusedNodesPass()(model)
    return len(layers)


def _branches(node: ir.Node) -> tuple[list[str], ...]:
    """Operators of an ``If``'s two branches; nothing of another node."""
    graphs = (node.attributes[name].as_graph() for name in NAMES if node.op_type == "If")
    return tuple([inner.op_type for inner in graph] for graph in graphs)


def _take_other_branch(graph: ir.Graph, node: ir.Node) -> None:
    """Put the nodes of an ``If``'s second branch in its place."""
    branch = node.attributes["else_branch"].as_graph()
    out, old = branch.outputs[0], node.outputs[0]
    nodes = list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    for inner in nodes:
        inner.name = None  # it was one among those of the branch
    graph.insert_before(node, nodes)
    out.shape, out.type = old.shape, old.type
    old.replace_all_uses_with(out, replace_graph_outputs=True)
