"""Sums as one operator with what reads them, where ONNX Runtime does not fuse them itself.

Before: a product, plus its bias, plus the residual, layer normalization; a product, plus its bias,
Gelu.

After: the product and ``SkipLayerNormalization``; the product and ``BiasGelu`` (com.microsoft).

ONNX Runtime does the same when it loads ``[batch, sequence, hidden]``. Of ``[tokens, hidden]`` it
takes product and bias as one ``Gemm``, which writes the bias first and reads it back, and leaves
residual and normalization apart.
"""

from __future__ import annotations

import itertools

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.walking import MICROSOFT, constant, producer, single_use

# Weights of a layer normalization.
SCALE_AND_BIAS = 2


def fuse_sums(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of operators made."""
    fusions = {"LayerNormalization": _fuse_norm, "Gelu": _fuse_gelu}
    graph = model.graph
    count = sum(fusions[n.op_type](graph, n) for n in list(graph) if n.op_type in fusions)
    if count:
        model.opset_imports[MICROSOFT] = 1
        RemoveUnusedNodesPass()(model)
    return count


def _fuse_norm(graph: ir.Graph, norm: ir.Node) -> bool:
    total, *weights = norm.inputs
    residual = producer(total, "Add")
    along_last = norm.attributes.get_int("axis", -1) == -1
    if total is None or residual is None or not along_last or len(weights) != SCALE_AND_BIAS:
        return False
    if single_use(total, norm.op_type, 0) is not norm or len(norm.outputs) > 1:
        return False
    for index, value in enumerate(residual.inputs):
        product, bias = _with_bias(value)
        other = residual.inputs[1 - index]
        if value is None or product is None or single_use(value, "Add", index) is not residual:
            continue
        if other is None or other.shape is None or other.shape != total.shape:
            continue
        inputs = [product, other, *weights, bias]
        attributes = {"epsilon": norm.attributes.get_float("epsilon", 1e-5)}
        build = Builder(graph, norm)
        made = build.node("SkipLayerNormalization", inputs, attributes, MICROSOFT)
        build.replace(norm.outputs[0], made)
        return True
    return False


def _fuse_gelu(graph: ir.Graph, gelu: ir.Node) -> bool:
    total = gelu.inputs[0]
    product, bias = _with_bias(total)
    exact = gelu.attributes.get_string("approximate", "none") == "none"
    if total is None or product is None or not exact or single_use(total, "Gelu", 0) is not gelu:
        return False
    build = Builder(graph, gelu)
    build.replace(gelu.outputs[0], build.node("BiasGelu", [product, bias], domain=MICROSOFT))
    return True


def _with_bias(value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """A product, and the constant vector that is added to each of its rows; else two None."""
    add = producer(value, "Add")
    for product, bias in itertools.permutations(add.inputs) if add is not None else ():
        content = constant(bias)
        if producer(product, "MatMul") is not None and content is not None and content.ndim == 1:
            return product, bias
    return None, None
