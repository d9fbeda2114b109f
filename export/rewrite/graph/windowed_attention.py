"""Attention to the keys within a window on both sides of the query, in blocks.

Before: scores of all queries and keys, of which a band along the diagonal counts.

After: blocks of as many queries as the window is wide on its wider side, each attending to its own
block of keys and those next to it, as one `MultiHeadAttention` over all blocks: a block takes the
place of a text in the batch. Keys of padding, and those outside of the text, are hidden by the key
mask. A text of n tokens has 3 n times the window scores instead of n^2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fmrt.export.rewrite.graph.building import Builder, Listing
from fmrt.export.rewrite.graph.masks import Masking
from fmrt.export.rewrite.graph.walking import MICROSOFT

# Blocks that attend together: the one before, the queries' own, and the one after.
TOGETHER = 3
# From how many windows on blocks are faster, see docs/performance.md; the widest window: its mask
# is a constant of the graph, 12 MiB there.
LONG = 5
WIDEST = 1024
# The end of a slice without one.
END = (1 << 63) - 1


def fits_blocks(masking: Masking) -> bool:
    """Whether a masking is a window that blocks can be made of."""
    return 0 < _width(masking) <= WIDEST


def is_long(build: Builder, tokens: ir.Value, masking: Masking) -> ir.Value:
    """Whether texts are so long that blocks are faster; a boolean scalar."""
    length = build.length(tokens)
    return build.node("Greater", [length, build.scalar(LONG * _width(masking))])


def windowed(
    build: Builder,
    inputs: tuple[ir.Value, ir.Value, ir.Value],
    mask: ir.Value,
    masking: Masking,
    heads: tuple[int, int, float],
) -> list[ir.Node]:
    """The nodes of attention in blocks, for a branch; the last one gives the result.

    Args:
        build: The builder for constants.
        inputs: The queries, keys and values, ``[batch, sequence, hidden]``.
        mask: The mask, 0 where a key is hidden, int64 ``[batch, sequence]``.
        masking: The window.
        heads: The number of heads, their size, and the scale of the scores.
    """
    width, branch = _width(masking), Listing()
    count, size, scale = heads
    hidden = count * size
    length = branch.node("Shape", [inputs[0]], {"start": 1, "end": 2})
    rest = branch.node("Mod", [branch.node("Neg", [length]), build.ints(width)])
    behind = branch.node("Add", [rest, build.ints(width)])

    def padded(x: ir.Value, front: int, back: ir.Value, *features: ir.Value) -> ir.Value:
        """``front`` and ``back`` more positions at the ends of the sequence."""
        ends = [build.ints(0, front, *[0] * len(features), 0), back, *features]
        return branch.node("Pad", [x, branch.node("Concat", ends, {"axis": 0})])

    def beside(x: ir.Value, features: int) -> ir.Value:
        """Each block of ``[batch, (blocks + 2) width, features]`` with those around it."""
        blocks = branch.node("Reshape", [x, build.ints(0, -1, width * features)])
        parts = [
            branch.node("Slice", [blocks, build.ints(i), build.ints(end), build.ints(1)])
            for i, end in ((0, -2), (1, -1), (2, END))
        ]
        return branch.node("Concat", parts, {"axis": -1})

    def in_blocks(x: ir.Value) -> ir.Value:
        around = beside(padded(x, width, behind, build.ints(0)), hidden)
        return branch.node("Reshape", [around, build.ints(-1, TOGETHER * width, hidden)])

    whole = padded(inputs[0], 0, rest, build.ints(0))
    queries = branch.node("Reshape", [whole, build.ints(-1, width, hidden)])
    key_mask = beside(padded(mask, width, behind), 1)
    key_mask = branch.node("Reshape", [key_mask, build.ints(-1, TOGETHER * width)])
    key_mask = branch.node("Cast", [key_mask], {"to": ir.DataType.INT32})
    keys, values = (in_blocks(x) for x in inputs[1:])
    attended = branch.node(
        "MultiHeadAttention",
        [queries, keys, values, None, key_mask, _band(build, masking)],
        {"num_heads": count, "scale": scale},
        MICROSOFT,
    )
    batch = branch.node("Shape", [inputs[0]], {"start": 0, "end": 1})
    sizes = branch.node("Concat", [batch, build.ints(-1, hidden)], {"axis": 0})
    tokens = branch.node("Reshape", [attended, sizes])
    branch.node("Slice", [tokens, build.ints(0), length, build.ints(1)])
    return branch.nodes


def _band(build: Builder, masking: Masking) -> ir.Value:
    """What the window hides of a block's keys, float32 ``[1, 1, width, 3 width]``."""
    width = _width(masking)
    apart = np.arange(TOGETHER * width)[None, :] - width - np.arange(width)[:, None]
    near = (apart >= -(masking.before or 0)) & (apart <= (masking.after or 0))
    bias = np.where(near, 0, np.finfo(np.float32).min).astype(np.float32)
    name = f"window_{masking.before}_{masking.after}"
    return build.constant(name, bias[None, None])


def _width(masking: Masking) -> int:
    if masking.before is None or masking.after is None:
        return 0
    return max(masking.before, masking.after)
