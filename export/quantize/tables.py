"""Embedding tables as 8-bit rows with a scale each, dequantized on gather.

Before: ``Gather(table, ids)``. After: ``Cast(Gather(rows, ids)) * Gather(scales, ids)``, in
operators of ONNX alone. Only the rows of a batch's tokens are ever float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fmrt.arrays import Floats
from fmrt.export.quantize.emit import Writer
from fmrt.export.quantize.sites import MATRIX
from fmrt.export.rewrite.graph.walking import constant

LARGEST = 127
# Smaller tables are not worth three nodes more.
FEWEST_ROWS = 256


def quantize_tables(model: ir.Model, writer: Writer, small: float = 0.0) -> int:
    """Apply in place; returns the number of look-ups that changed.

    Args:
        model: The graph.
        writer: A writer of that graph.
        small: The part of the largest table below which a table stays as it is.
    """
    tables = {node: table for node in model.graph if (table := _table(node)) is not None}
    fewest = small * max((table.size for table in tables.values()), default=0)
    large = {node: table for node, table in tables.items() if table.size >= fewest}
    for node, table in large.items():
        _quantize(node, table, writer)
    return len(large)


def _table(node: ir.Node) -> Floats | None:
    """The table whose rows a node looks up, where it is worth the change."""
    if node.op_type != "Gather" or node.domain != "":
        return None
    if bool(node.attributes.get_int("axis", 0)):
        return None
    table = constant(node.inputs[0])
    if table is None or table.ndim != MATRIX or table.dtype != np.float32:
        return None
    return table if len(table) >= FEWEST_ROWS else None


def _quantize(node: ir.Node, table: Floats, writer: Writer) -> None:
    source, ids = node.inputs
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / LARGEST, 1e-12).astype(np.float32)
    rows = np.round(table / scale).astype(np.int8)
    gathered = writer.add(node, "Gather", [writer.constant(rows, like=(source, "rows")), ids])
    scales = writer.add(node, "Gather", [writer.constant(scale, like=(source, "scales")), ids])
    floats = writer.add(node, "Cast", [gathered], {"to": int(ir.DataType.FLOAT)})
    out = writer.add(node, "Mul", [floats, scales])
    old = node.outputs[0]
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    out.type, out.shape = old.type, old.shape
