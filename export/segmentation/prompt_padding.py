"""A graph pass: Segment Anything's padding of prompts, which depends on whether they hold a box."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

POINTS, LABELS = "input_points", "input_labels"
FIRST_CORNER = 2
NO_POINT = -1


def pad_prompts(model: ir.Model) -> None:
    """Append a point labelled -1 to every prompt, in place, unless a prompt holds a box.

    Segment Anything pads prompts of points so, and prompts with a box not. torch.export has no
    shape that depends on values, so the choice is added to its graph. All prompts of one call have
    a box, or none has::

        labels [batch, prompts, points] -> [batch, prompts, points + 1], or the same
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    points, labels = inputs[POINTS], inputs[LABELS]
    readers = {value: list(value.uses()) for value in (points, labels)}
    tape = ir.tape.Tape()
    op = tape.op

    def constant(value: object, dtype: type, name: str) -> ir.Value:
        tensor = ir.tensor(np.array(value, dtype))
        return op("Constant", [], {"value": tensor}, output=ir.Value(name=f"prompt_{name}"))

    corner = op("Equal", [labels, constant(FIRST_CORNER, np.int64, "corner")])
    corners = op("ReduceSum", [op("Cast", [corner], {"to": ir.DataType.INT64})], {"keepdims": 0})
    none = op("Equal", [corners, constant(0, np.int64, "none")])
    count = op("Cast", [none], {"to": ir.DataType.INT64})
    count = op("Reshape", [count, constant([1], np.int64, "one_axis")])
    prompts = op("Shape", [labels], {"start": 0, "end": 2})
    shape = op("Concat", [prompts, count], {"axis": 0})
    no_label = op("ConstantOfShape", [shape], {"value": ir.tensor(np.array([NO_POINT], np.int64))})
    pairs = op("Concat", [shape, constant([2], np.int64, "pair")], {"axis": 0})
    no_point = op("ConstantOfShape", [pairs], {"value": ir.tensor(np.zeros(1, np.float32))})
    for value, padding in ((points, no_point), (labels, no_label)):
        padded = op("Concat", [value, padding], {"axis": 2})
        for node, index in readers[value]:
            node.replace_input_with(index, padded)
        # The rest of the graph knows its own points, the padding among them, by the traced name.
        sides = list(value.shape or ())
        value.shape = ir.Shape([*sides[:2], "points", *sides[3:]])
    for index, node in enumerate(tape.nodes):
        for output in node.outputs:
            output.name = output.name or f"prompt_padding_{index}"
    graph.insert_before(graph[0], tape.nodes)
