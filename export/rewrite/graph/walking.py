"""Small questions that passes ask of a graph's values."""

from __future__ import annotations

from typing import Any, TypeVar

import onnx_ir as ir
from numpy.typing import NDArray

# The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
# ONNX Runtime's own operator, in the standard's domain.
RMS_NORM = "SimplifiedLayerNormalization"
# Axes of [batch, sequence, hidden], and of [batch, heads, sequence, head size].
TOKENS_AXES, HEADS_AXES = 3, 4

T = TypeVar("T")


def present(value: T | None) -> T:
    """What has been seen to be there before.

    Raises:
        ValueError: The value is missing.
    """
    if value is None:
        raise ValueError("the graph lacks a value or a shape that it had")
    return value


def shape_of(value: ir.Value | None, rank: int) -> ir.Shape | None:
    """The shape of a value with so many axes, or None."""
    shape = None if value is None else value.shape
    return shape if shape is not None and len(shape) == rank else None


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


def same_axes(a: ir.Value, b: ir.Value, *, one_query: bool = False) -> bool:
    """Whether two values are ``[batch, heads, sequence, head size]`` with equal known sizes.

    Args:
        a: A value.
        b: Another.
        one_query: Whether the sequence of ``a`` may also be one token.
    """
    first, second = shape_of(a, HEADS_AXES), shape_of(b, HEADS_AXES)
    if first is None or second is None:
        return False
    pairs = [*zip(first, second, strict=True)]
    if one_query and first[2] == 1:
        del pairs[2]
    known = all(x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int))
    return known and isinstance(first[1], int) and isinstance(first[3], int)
