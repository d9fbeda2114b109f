"""Biases that a layer normalization adds for nothing, instead of a pass over the activations.

Before: ``Add(Add(product, bias), norm)``, where ``norm`` is a layer normalization that only this
residual sum reads, as the products after it read their own (see `fmrt.export.quantize.emit`).
After: ``Add(product, norm')``, with the bias in the normalization's own.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.quantize.emit import Writer
from fmrt.export.rewrite.graph.walking import constant

# Inputs of a layer normalization with a bias.
WITH_BIAS = 3


def move_biases_to_norms(model: ir.Model) -> int:
    """Apply in place, without dead nodes in the graph; returns the number of biases moved."""
    writer = Writer(model, "residual")
    moved = [node for node in model.graph if node.op_type == "Add" and _move(writer, node)]
    RemoveUnusedNodesPass()(model)
    return len(moved)


def _move(writer: Writer, add: ir.Node) -> bool:
    product, bias = _with_bias(add)
    residual = _only_reader(add.outputs[0])
    if product is None or bias is None or residual is None or residual.op_type != "Add":
        return False
    other = next((v for v in residual.inputs if v is not add.outputs[0]), None)
    norm = _norm(other, residual)
    beta = constant(norm.inputs[2]) if norm is not None else None
    array = constant(bias)
    if norm is None or beta is None or array is None or beta.shape != array.shape:
        return False
    norm.replace_input_with(2, writer.constant(beta + array))
    add.outputs[0].replace_all_uses_with(product)
    return True


def _with_bias(add: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The computed operand of a sum and the constant one, None for what it has not."""
    a, b = add.inputs
    if constant(a) is not None:
        a, b = b, a
    return (a, b) if constant(b) is not None else (a, None)


def _norm(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """The layer normalization with a bias whose result, reshaped or not, has this reader alone."""
    while value is not None and _only_reader(value) is reader:
        node = value.producer()
        if node is None:
            return None
        if node.op_type != "Reshape":
            fits = node.op_type == "LayerNormalization" and len(node.inputs) == WITH_BIAS
            return node if fits else None
        value, reader = node.inputs[0], node
    return None


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
