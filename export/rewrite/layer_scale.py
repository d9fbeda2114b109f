"""The scale of a layer's result in the layer's own weights.

Before: ``scale (x W + b)``, with one number per feature, as CaiT (Touvron et al., arXiv:2103.17239)
has it and DINOv2 after it: one more pass over ``[batch, sequence, hidden]`` twice per layer.

After: ``x (W scale) + b scale``. What ONNX Runtime does with a bias it can do again.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.walking import constant, constant_rank, present, producer

MATRIX = 2


def fold_layer_scale(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of scales that went into weights."""
    count = sum(_fold(model.graph, node) for node in list(model.graph) if node.op_type == "Mul")
    RemoveUnusedNodesPass()(model)
    return count


def _fold(graph: ir.Graph, mul: ir.Node) -> bool:
    scale, scaled = _vector_and_other(mul)
    add = producer(scaled, "Add")
    bias, product = (None, scaled) if add is None else _vector_and_other(add)
    matmul = producer(product, "MatMul")
    if scale is None or matmul is None or not all(map(_once, (scaled, product))):
        return False
    weight, by = constant(matmul.inputs[1]), present(constant(scale))
    if weight is None or weight.ndim != MATRIX or weight.shape[1] != by.size:
        return False
    build, names = Builder(graph, mul), (matmul.inputs[1], bias)
    matrix, moved = (f"{value.name}_{scale.name}" if value else "" for value in names)
    result = build.node("MatMul", [matmul.inputs[0], build.constant(matrix, weight * by)])
    if bias is not None:
        sums = build.constant(moved, present(constant(bias)) * by)
        result = build.node("Add", [result, sums])
    build.replace(mul.outputs[0], result)
    return True


def _vector_and_other(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The constant with one number per feature, and the other operand."""
    vector = next((v for v in node.inputs if constant_rank(v) == 1), None)
    return vector, next((v for v in node.inputs if v is not vector), None)


def _once(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()
