"""Weights stored in 8 bits, computed in float32: the same vectors on every processor.

Activations are not rounded, so that no last bit, which differs between processors, can fall on the
other side of a step. Before: ``MatMul(x, weight)``. After: ``MatMul(x, Cast(rounded) * scale)``, in
operators of ONNX alone. ONNX Runtime computes the weight once at load, and then runs at the speed
of fp32. ``DequantizeLinear`` would not do: ONNX Runtime makes one operator of it and the product,
which rounds activations too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.errors import ExportError
from fmrt.export.quantize.context import Context, Made
from fmrt.export.quantize.emit import Writer
from fmrt.export.quantize.sites import Linear, find_sites
from fmrt.export.quantize.tables import quantize_tables

LARGEST = 127


def store_int8(context: Context) -> Made:
    """8-bit weights and tables, arithmetic in 32 bits.

    Raises:
        ExportError: The graph has no products with constant weights.
    """
    model = context.base.clone()
    writer = Writer(model, "stored")
    linears = [linear for site in find_sites(model) for linear in site.linears]
    if not linears:
        raise ExportError("the graph has no matrix products with constant weights to store")
    for linear in linears:
        _store(writer, linear)
    quantize_tables(model, writer)
    RemoveUnusedNodesPass()(model)
    return Made(model, 0, len(linears))


def _store(writer: Writer, linear: Linear) -> None:
    """One scale for each column of ``[K, N]``; a ``Gemm`` may hold it the other way round."""
    scale = np.maximum(np.abs(linear.weight).max(axis=0) / LARGEST, 1e-12).astype(np.float32)
    rounded = np.clip(np.round(linear.weight / scale), -LARGEST, LARGEST).astype(np.int8)
    transposed = linear.node.op_type == "Gemm" and bool(linear.node.attributes.get_int("transB", 0))
    if transposed:
        rounded, scale = np.ascontiguousarray(rounded.T), scale[:, None]
    stored = writer.constant(rounded, like=(linear.source, "stored"))
    floats = writer.add(linear.node, "Cast", [stored], {"to": int(ir.DataType.FLOAT)})
    weight = writer.add(linear.node, "Mul", [floats, writer.constant(scale)])
    linear.node.replace_input_with(1, weight)
