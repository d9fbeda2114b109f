"""The feed-forward part of a layer in blocks of rows, where there are many.

Before: ``[rows, wide]`` activations between two products, for all tokens of a long text at once:
100 MB each at 8,192 tokens of Qwen3-0.6B.

After: a ``Scan`` over blocks of at least 512 rows, with the same nodes in its body. What is wide
stays in the core's cache, and is never held for the whole text. Each row is computed as before, to
the last bit. The weights stay where they are, in the graph around the body, and ONNX Runtime packs
them once.

Gain: see docs/performance.md.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.rewrite.building import Builder
from export.rewrite.feed_forward import Part, feed_forward_parts

# Rows of a block: as many, and less than twice as many where they do not come out even.
ROWS = 512
# Items of at most as many positions gain nothing.
SHORT = 1024
NAME = "block_of_rows"


def feed_forward_in_blocks(model: ir.Model, longest: int | None = None) -> int:
    """Apply the pass in place, behind all others; returns the number of parts.

    Args:
        model: the graph.
        longest: positions of the longest item; None where that is not known, and nothing done.
    """
    if longest is None or longest <= SHORT:
        return 0
    parts = feed_forward_parts(model.graph)
    # The last one first: an earlier one's end may be a later one's entry.
    for i, part in reversed(list(enumerate(parts))):
        _put_into_scan(model.graph, part, f"{NAME}_{i}")
    return len(parts)


def join_blocks(model: ir.Model) -> int:
    """Undo the pass in place; returns the number of parts."""
    count = sum(_take_out(model.graph, node) for node in list(model.graph))
    if count:
        RemoveUnusedNodesPass()(model)
    return count


def _put_into_scan(graph: ir.Graph, part: Part, name: str) -> None:
    build = Builder(graph, part.nodes[-1])
    before, after = part.features
    flat = part.entry
    if not part.flat:
        flat = build.node("Reshape", [flat, build.ints(-1, before)])
    rows = build.node("Shape", [flat], {"start": 0, "end": 1})
    blocks = build.node("Max", [build.node("Div", [rows, build.ints(ROWS)]), build.ints(1)])
    missing = build.node("Mod", [build.node("Neg", [rows]), blocks])
    ends = build.node("Concat", [build.ints(0, 0), missing, build.ints(0)], {"axis": 0})
    sizes = build.node("Concat", [blocks, build.ints(-1, before)], {"axis": 0})
    apart = build.node("Reshape", [build.node("Pad", [flat, ends]), sizes])
    scan = ir.Node("", "Scan", [apart], [ir.AttrInt64("num_scan_inputs", 1)])
    together = build.node("Reshape", [build.add(scan), build.ints(-1, after)])
    whole = build.node("Slice", [together, build.ints(0), rows, build.ints(0)])
    if not part.flat:
        axes = build.node("Shape", [part.entry], {"start": 0, "end": -1})
        shape = build.node("Concat", [axes, build.ints(after)], {"axis": 0})
        whole = build.node("Reshape", [whole, shape])
    build.replace(part.end, whole)
    scan.attributes["body"] = ir.AttrGraph("body", _body_of(graph, part, name))


def _body_of(graph: ir.Graph, part: Part, name: str) -> ir.Graph:
    """The part's nodes, moved into a graph that takes a block of rows and gives one."""
    before, after = part.features
    # Of a known number of rows ONNX Runtime would add the residual inside of a Gemm, with other
    # last bits.
    block = ir.val(f"{name}_in", dtype=ir.DataType.FLOAT, shape=[None, before])
    for node in part.nodes:
        for i, value in enumerate(node.inputs):
            if value is part.entry:
                node.replace_input_with(i, block)
        # Rows have one axis in front of the last one now.
        if "axis" in node.attributes:
            node.attributes["axis"] = ir.AttrInt64("axis", -1)
        for value in node.outputs:
            value.shape = None
    part.end.name, part.end.dtype = f"{name}_out", ir.DataType.FLOAT
    part.end.shape = ir.Shape([None, after])
    graph.remove(part.nodes)
    return ir.Graph([block], [part.end], nodes=part.nodes, name=name)


def _take_out(graph: ir.Graph, scan: ir.Node) -> bool:
    """Put a body's nodes in front of its ``Scan``, and let others read them; False if not ours."""
    body = scan.attributes["body"].as_graph() if scan.op_type == "Scan" else None
    if body is None or not (body.name or "").startswith(NAME):
        return False
    whole = _only_reader(_only_reader(scan))
    flat = _first(_first(scan)).inputs[0]
    assert flat is not None  # noqa: S101  # Pad has an input
    (block,), (end,), nodes = body.inputs, list(body.outputs), list(body)
    body.outputs.clear()
    body.remove(nodes)
    block.replace_all_uses_with(flat)
    graph.insert_before(scan, nodes)
    Builder(graph, scan).replace(whole.outputs[0], end)
    return True


def _only_reader(node: ir.Node) -> ir.Node:
    (use,) = node.outputs[0].uses()
    return use.node


def _first(node: ir.Node) -> ir.Node:
    """What gives a node's first input."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    assert producer is not None  # noqa: S101  # of the nodes of `_put_into_scan`
    return producer
