"""Small questions that passes ask of a graph's values."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

# The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
# ONNX Runtime's own operator, in the standard's domain.
RMS_NORM = "SimplifiedLayerNormalization"


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The standard operator of this type that gives a value, or None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type == op_type else None


def single_use(value: ir.Value, op_type: str, index: int) -> ir.Node | None:
    """The standard operator of this type that alone reads a value, as input ``index``, or None."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].idx != index:
        return None
    node = uses[0].node
    return node if node.domain == "" and node.op_type == op_type else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of a constant, or None for what is computed or fed."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return tensor.numpy() if tensor is not None else None


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element is, or None."""
    content = constant(value)
    return float(content.reshape(-1)[0]) if content is not None and content.size == 1 else None


def constant_rank(value: ir.Value | None) -> int | None:
    """How many axes a constant has; None for what is none."""
    content = constant(value)
    return None if content is None else content.ndim


def same_axes(a: ir.Value, b: ir.Value) -> bool:
    """Whether two values are ``[batch, heads, sequence, head size]`` with equal known sizes."""
    if a.shape is None or b.shape is None or len(a.shape) != 4 or len(b.shape) != 4:  # noqa: PLR2004
        return False
    pairs = zip(a.shape, b.shape, strict=True)
    known = all(x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int))
    return known and isinstance(a.shape[1], int) and isinstance(a.shape[3], int)
