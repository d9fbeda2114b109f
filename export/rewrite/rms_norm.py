"""Root mean square normalization (Zhang and Sennrich, arXiv:1910.07467) as one operator.

Before: ``x / sqrt(mean(x^2) + epsilon) * weight`` in seven operators, five of which pass over
``[batch, sequence, hidden]`` or ``[batch, sequence, 1]``.

After: ``SimplifiedLayerNormalization``, ONNX Runtime's own name for it, which it makes itself of
other spellings of the same. Unlike the standard's `RMSNormalization` it asks for no opset.

Gain: see docs/performance.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.walking import RMS_NORM, constant, present, producer

# The exponent.
SQUARE = 2


def fuse_rms_norm(model: ir.Model) -> int:
    """Apply the pass in place; returns the number of normalizations."""
    count = sum(_apply(model.graph, node) for node in list(model.graph) if node.op_type == "Mul")
    RemoveUnusedNodesPass()(model)
    return count


@dataclass(frozen=True)
class _Norm:
    """``x`` before the normalization, its weight per feature, and what is added to the mean."""

    x: ir.Value
    weight: ir.Value
    epsilon: float


def _apply(graph: ir.Graph, mul: ir.Node) -> bool:
    found = _find(mul)
    if found is None:
        return False
    attributes = {"axis": -1, "epsilon": found.epsilon}
    new = Builder(graph, mul).node(RMS_NORM, [found.x, found.weight], attributes)
    Builder(graph, mul).replace(mul.outputs[0], new)
    return True


def _find(mul: ir.Node) -> _Norm | None:
    """Take ``weight * (x * 1 / sqrt(mean + epsilon))`` apart, factors in any order."""
    for weight, scaled in itertools.permutations(mul.inputs):
        inner = producer(scaled, "Mul")
        for x, factor in itertools.permutations(inner.inputs) if inner is not None else ():
            epsilon = _epsilon(factor, x)
            if epsilon is not None and _is_per_feature(weight, x):
                return _Norm(present(x), present(weight), epsilon)
    return None


def _epsilon(factor: ir.Value | None, x: ir.Value | None) -> float | None:
    """The epsilon of ``factor``, if that is ``1 / sqrt(mean(x^2) + epsilon)``."""
    inverse = producer(factor, "Reciprocal")
    root = producer(inverse.inputs[0], "Sqrt") if inverse is not None else None
    add = producer(root.inputs[0], "Add") if root is not None else None
    mean = producer(add.inputs[0], "ReduceMean") if add is not None else None
    square = producer(mean.inputs[0], "Pow") if mean is not None else None
    if add is None or mean is None or square is None or square.inputs[0] is not x:
        return None
    exponent, axes, epsilon = (
        constant(value) for value in (square.inputs[1], mean.inputs[1], add.inputs[1])
    )
    last = axes is not None and axes.tolist() == [-1] and mean.attributes.get_int("keepdims", 1)
    if not last or exponent is None or exponent.tolist() != SQUARE or epsilon is None:
        return None
    return float(epsilon) if epsilon.size == 1 else None


def _is_per_feature(weight: ir.Value | None, x: ir.Value | None) -> bool:
    if weight is None or weight.shape is None or x is None or x.shape is None:
        return False
    return list(weight.shape) == [x.shape[-1]] and isinstance(x.shape[-1], int)
