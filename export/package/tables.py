"""Embedding tables with some of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from fmrt.errors import ExportError
from fmrt.export.rewrite.graph.walking import constant

INPUT = "input_ids"
# Operators that keep every id.
SHAPING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
ROWS = 1


def cut_tables(model: ir.Model, kept: Sequence[int]) -> None:
    """Keep the rows of the tables that token ids look up, in place.

    Args:
        model: The graph.
        kept: The ids whose rows stay, ascending; a row's new place is its id's place here.

    Raises:
        ExportError: The graph has no such table.
    """
    tables = {id(value): value for value in _tables(model)}
    if not tables:
        raise ExportError("the graph looks token ids up in no table, so that none can be cut")
    rows = np.asarray(kept, np.int64)
    for value in tables.values():
        array = constant(value)
        assert array is not None  # noqa: S101  # `_tables` gives constants
        value.const_value = ir.tensor(np.ascontiguousarray(array[rows]), name=value.name)
        value.shape = ir.Shape((len(rows), *array.shape[ROWS:]))


def _tables(model: ir.Model) -> Iterator[ir.Value]:
    left = [value for value in model.graph.inputs if value.name == INPUT]
    seen = set(map(id, left))
    while left:
        for use in left.pop().uses():
            node = use.node
            if node.op_type == "Gather" and use.idx == 1:
                table = node.inputs[0]
                if table is not None and constant(table) is not None:
                    yield table
            elif node.op_type in SHAPING and use.idx == 0:
                new = [value for value in node.outputs if id(value) not in seen]
                seen.update(map(id, new))
                left += new
