"""Attention by one path, so that padding does not move a value over the edge of a rounding step.

Before: an ``If`` with flash attention for batches without padding and masked attention for others
(see `export.rewrite.fused_attention`). Both are right, and their last bits differ; where a value is
rounded to 8 bits behind them, that can become a whole step.

After: one ``Attention`` (ONNX 23) with the mask, whatever the batch. Sums run over the keys in
their order, and what padding adds to them is zero, so the result for a text is the same to the last
bit with padding and without. On short texts it is faster than flash attention, too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.quantize.emit import Writer
from export.rewrite.walking import producer

# The first with ``Attention``. Since 18, where exports begin, no operator that they have has
# changed its meaning.
OPSET = 23
# Place of the key mask among the inputs of ``MultiHeadAttention``.
KEY_MASK = 4


def attend_by_one_path(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of layers changed."""
    writer = Writer(model, "attention")
    masks: dict[ir.Value, ir.Value] = {}
    layers = [
        (node, *found) for node in model.graph if (found := _masked_attention(node)) is not None
    ]
    for node, attention, mask in layers:
        if mask not in masks:
            masks[mask] = _matrix(writer, node, mask)
        heads = attention.attributes["num_heads"].as_int()
        attributes: dict[str, int | float] = {
            "q_num_heads": heads,
            "kv_num_heads": heads,
            "scale": attention.attributes["scale"].as_float(),
        }
        inputs = [*attention.inputs[:3], masks[mask]]
        out, old = writer.add(node, "Attention", inputs, attributes), node.outputs[0]
        out.shape, out.type = old.shape, old.type
        old.replace_all_uses_with(out, replace_graph_outputs=True)
    if layers:
        model.opset_imports[""] = max(OPSET, model.opset_imports[""])
        RemoveUnusedNodesPass()(model)
    return len(layers)


def _masked_attention(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Of a node that chooses between two paths: the masked one, and its mask as it was fed."""
    branch = node.attributes.get("else_branch") if node.op_type == "If" else None
    nodes = list(branch.as_graph()) if branch is not None else []
    if len(nodes) != 1 or nodes[0].op_type != "MultiHeadAttention":
        return None
    inputs = nodes[0].inputs
    cast = producer(inputs[KEY_MASK], "Cast") if len(inputs) > KEY_MASK else None
    mask = None if cast is None else cast.inputs[0]
    return None if mask is None else (nodes[0], mask)


def _matrix(writer: Writer, before: ir.Node, mask: ir.Value) -> ir.Value:
    """The mask as bool ``[batch, 1, sequence, sequence]``: the kernel broadcasts no queries."""
    allowed = writer.add(before, "Cast", [mask], {"to": int(ir.DataType.BOOL)})
    axes = writer.constant(np.array([1, 2], np.int64))
    row = writer.add(before, "Unsqueeze", [allowed, axes])
    length = writer.add(before, "Shape", [mask], {"start": 1})
    ones = writer.constant(np.array([1, 1], np.int64))
    shape = writer.add(before, "Concat", [ones, length, length], {"axis": 0})
    return writer.add(before, "Expand", [row, shape])
