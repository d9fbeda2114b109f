"""Rotary position embedding (Su et al., arXiv:2104.09864) as one operator.

Before: ``x cos + concat(-x[half:], x[:half]) sin`` on ``[batch, heads, sequence, head size]``: six
operators, each a pass over the memory.

After: ``RotaryEmbedding`` (com.microsoft) on ``[batch, sequence, hidden]``, with the graph's own
cosines and sines, whose two halves are equal.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import onnx_ir as ir

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.walking import MICROSOFT, constant, producer, scalar, shape_of

# Halves of a head, and tables: cosines and sines, each ``[1, sequence, size]``.
BOTH = 2
TABLE_AXES = 3


@dataclass(frozen=True)
class _Rotation:
    """``x`` before the rotation, and its tables ``[1, sequence, size]``."""

    x: ir.Value
    cos: ir.Value
    sin: ir.Value


def rotated_tokens(build: Builder, heads: ir.Value) -> ir.Value:
    """Queries or keys as ``[batch, sequence, hidden]``, rotated there if they are at all."""
    found = _find(heads)
    shape = heads.shape
    if found is None or shape is None or not isinstance(shape[3], int):
        return build.tokens(heads)
    half = shape[3] // 2
    tables = [_table(build, table, half) for table in (found.cos, found.sin)]
    inputs = [build.tokens(found.x), build.ints(0), *tables]
    attributes = {"num_heads": int(str(shape[1])), "interleaved": 0}
    return build.node("RotaryEmbedding", inputs, attributes, MICROSOFT)


def _table(build: Builder, table: ir.Value, half: int) -> ir.Value:
    """``[sequence, half]`` of ``[1, sequence, size]``."""
    row = build.node("Squeeze", [table, build.ints(0)])
    return build.node("Slice", [row, build.ints(0), build.ints(half), build.ints(1)])


def _find(heads: ir.Value) -> _Rotation | None:
    add = producer(heads, "Add")
    if add is None:
        return None
    for first, second in itertools.permutations(add.inputs):
        plain, turned = producer(first, "Mul"), producer(second, "Mul")
        if plain is None or turned is None:
            continue
        x, cos = plain.inputs
        half, sin = turned.inputs
        tables = [found for found in map(_unsqueezed, (cos, sin)) if found is not None]
        if x is not None and _is_half_turn(half, x) and len(tables) == BOTH:
            return _Rotation(x, *tables)
    return None


def _unsqueezed(table: ir.Value | None) -> ir.Value | None:
    """``[1, sequence, size]`` after the axis of the heads, if its halves are one concatenated."""
    unsqueeze = producer(table, "Unsqueeze")
    if unsqueeze is None:
        return None
    inner = unsqueeze.inputs[0]
    axes = constant(unsqueeze.inputs[1])
    shape = shape_of(inner, TABLE_AXES)
    if inner is None or shape is None or shape[0] != 1:
        return None
    wave = inner.producer()
    both = producer(wave.inputs[0], "Concat") if wave is not None else None
    twice = both is not None and len(both.inputs) == BOTH and both.inputs[0] is both.inputs[1]
    return inner if twice and axes is not None and axes.tolist() == [1] else None


def _is_half_turn(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` is ``concat(-x[half:], x[:half])``."""
    both = producer(value, "Concat")
    if both is None or len(both.inputs) != BOTH or x.shape is None:
        return False
    negated = producer(both.inputs[0], "Neg")
    upper = producer(negated.inputs[0], "Slice") if negated is not None else None
    lower = producer(both.inputs[1], "Slice")
    half = x.shape[3] // 2 if isinstance(x.shape[3], int) else None
    return (
        upper is not None
        and lower is not None
        and upper.inputs[0] is x
        and lower.inputs[0] is x
        and scalar(upper.inputs[1]) == half
        and scalar(lower.inputs[1]) == 0
        and scalar(lower.inputs[2]) == half
    )
