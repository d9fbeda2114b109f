"""Keys and values as ``[batch, sequence, hidden]``, where queries of several heads may share them.

Before: keys are rotated, and each head of them is repeated for a group of the queries' heads.

After: the rotation is one operator, on as few heads as there are. An operator that shares them
takes those. Others get them repeated, without a transposition.
"""

from __future__ import annotations

import onnx_ir as ir

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.layers import Attention, ungrouped
from fmrt.export.rewrite.graph.rotary import rotated_tokens
from fmrt.export.rewrite.graph.walking import present


def shared_tokens(build: Builder, heads: ir.Value) -> tuple[ir.Value, int]:
    """Keys or values before groups of queries' heads share them, and the number of their heads."""
    few = ungrouped(heads)
    return rotated_tokens(build, few), int(str(present(few.shape)[1]))


def own_tokens(build: Builder, found: Attention, heads: ir.Value) -> ir.Value:
    """Keys or values of a layer, in as many heads as the queries have."""
    tokens, count = shared_tokens(build, heads)
    times = found.heads // count
    if times == 1:
        return tokens
    apart = build.node("Reshape", [tokens, build.ints(0, 0, count, 1, found.size)])
    repeated = build.node("Expand", [apart, build.ints(1, 1, 1, times, 1)])
    return build.node("Reshape", [repeated, build.ints(0, 0, -1)])
