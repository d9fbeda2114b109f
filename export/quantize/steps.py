"""Whether padding can push a value over the edge of a rounding step.

Vectors of a few hundred items may all be the same with padding and without, and the next one not:
where a value before a rounding differs in its last bits, it needs only be near enough to an
edge. So the values themselves are compared, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from fmrt.arrays import Floats
from fmrt.export.quantize.context import Context

# ``If`` takes another branch for some batches. ``GroupQueryAttention`` computes the queries in
# blocks of a size that depends on the CPU's cache, and where the last one has a single query of a
# text alone, and more with padding, in another order.
PADDING_SHOWS = frozenset({"If", "GroupQueryAttention"})
# Items of different lengths, each next to itself padded to the next one's.
ITEMS = 16


def padding_moves(context: Context, model: ir.Model) -> bool:
    """Whether what a graph rounds is not the same to the last bit next to a longer item."""
    probe = context.calibration
    if not probe.padded:
        return False
    if any(node.op_type in PADDING_SHOWS for node in model.graph):
        return True
    rounded = (n.inputs[0] for n in model.graph if n.op_type == "QuantizeLinear")
    names = list(dict.fromkeys(str(value.name) for value in rounded if value is not None))
    _, distinct = np.unique(probe.lengths, return_index=True)
    spread = np.linspace(0, len(distinct) - 1, min(ITEMS, len(distinct))).astype(int)
    pairs = pairwise(distinct[spread])
    batches = [np.array(rows) for a, b in pairs for rows in ([a], [a, b])]
    runs = iter(probe.runs(model, names, batches))
    return any(_differ(alone, padded) for alone, padded in zip(runs, runs, strict=True))


def _differ(alone: Mapping[str, Floats], padded: Mapping[str, Floats]) -> bool:
    """Whether the first of two rows is another than alone; padding is after its own positions."""
    for name, own in alone.items():
        rows = padded[name].reshape(2, -1, own.shape[-1])[0]
        flat = own.reshape(-1, own.shape[-1])
        if not np.array_equal(rows[: len(flat)], flat):
            return True
    return False
