"""Constants that are almost nothing stay in graphs."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnxscript import optimizer

from fmrt.export.exact_rules import take_constants_exactly


@pytest.mark.parametrize(
    ("operator", "constant", "kept"),
    [("Add", 1e-8, 2), ("Add", 0.0, 1), ("Mul", 1.000001, 2), ("Mul", 1.0, 1)],
)
def test_only_what_changes_nothing_is_dropped(operator: str, constant: float, kept: int) -> None:
    take_constants_exactly()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    c = ir.Value(name="c", const_value=ir.tensor(constant, ir.DataType.FLOAT, name="c"))
    node = ir.Node("", operator, [x, c])
    root = ir.Node("", "Sqrt", [node.outputs[0]])
    graph = ir.Graph(
        [x], root.outputs, nodes=[node, root], initializers=[c], opset_imports={"": 20}
    )
    model = ir.Model(graph, ir_version=10)
    optimizer.optimize_ir(model)
    assert len(model.graph) == kept
