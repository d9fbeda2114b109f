"""Embedding tables as 8-bit rows with a scale each, dequantized on gather.

Before: ``Gather(table, ids)``. After: ``Cast(Gather(rows, ids)) * Gather(scales, ids)``, in
operators of ONNX alone. Only the rows of a batch's tokens are ever float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fmrt.export.quantize.emit import Writer
from fmrt.export.quantize.sites import MATRIX
from fmrt.export.rewrite.graph.walking import constant

LARGEST = 127
# Smaller tables are not worth three nodes more.
FEWEST_ROWS = 256


def quantize_tables(model: ir.Model, writer: Writer) -> int:
    """Apply in place; returns the number of look-ups that changed."""
    count = 0
    for node in list(model.graph):
        if (
            node.op_type == "Gather"
            and node.domain == ""
            and not bool(node.attributes.get_int("axis", 0))
        ):
            count += _quantize(node, writer)
    return count


def _quantize(node: ir.Node, writer: Writer) -> bool:
    source, ids = node.inputs
    table = constant(source)
    if table is None or table.ndim != MATRIX or table.dtype != np.float32:
        return False
    if len(table) < FEWEST_ROWS:
        return False
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / LARGEST, 1e-12).astype(np.float32)
    rows = np.round(table / scale).astype(np.int8)
    gathered = writer.add(node, "Gather", [writer.constant(rows, like=(source, "rows")), ids])
    scales = writer.add(node, "Gather", [writer.constant(scale, like=(source, "scales")), ids])
    floats = writer.add(node, "Cast", [gathered], {"to": int(ir.DataType.FLOAT)})
    out = writer.add(node, "Mul", [floats, scales])
    old = node.outputs[0]
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    out.type, out.shape = old.type, old.shape
    return True
