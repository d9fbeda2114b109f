"""Puts the model's pooling and what comes after it into a graph that ends in tokens' states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import torch

from fmrt.errors import ExportError, said
from fmrt.export.adopt.graph import MASK, STATES, claim
from fmrt.export.part import Part
from fmrt.export.text.pooling import TextHead
from fmrt.export.text.source import TextSource
from fmrt.export.text.tower import PROMPT_LENGTH
from fmrt.export.trace import OPSETS, trace

PREFIX = "head."
# From these opsets on, operators read their axes from an input.
AXES_INPUT = {
    18: ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare",
         "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"),
    13: ("ReduceSum", "Squeeze", "Unsqueeze"),
}  # fmt: skip
# Attributes that are at their default, with the opset that brought each.
ATTRIBUTES = {"allowzero": 14, "select_last_index": 12}
# From this opset on, a shape's part can be asked for.
PART_OF_SHAPE = 15


class Layers(Part):
    """What comes after a text model's tokens' states."""

    @property
    def modality(self) -> str:
        """Of the graph that it is put after."""
        return "text"


def make_head(source: TextSource, width: int, opset: int) -> ir.Model:
    """The graph from ``last_hidden_state`` to ``sentence_embedding``, for a graph of some opset.

    Args:
        source: The model whose layers these are.
        width: The number of features of a token's state.
        opset: The version of ONNX's operators.

    Raises:
        ExportError: The model's layers cannot be had in that version.
    """
    rows, length = 2, 5
    inputs = {STATES: torch.ones(rows, length, width), MASK: torch.ones(rows, length).long()}
    if not source.pooling.include_prompt:
        inputs[PROMPT_LENGTH] = torch.zeros(1, dtype=torch.int64)
    axes = {STATES: (0, 1), MASK: (0, 1)}
    optional = tuple(name for name in inputs if name == PROMPT_LENGTH)
    module = TextHead(source).eval()
    part = Layers(stem="head", module=module, inputs=inputs, axes=axes, optional=optional)
    head = trace(part, "text", max(opset, OPSETS.start))
    lower(head, opset)
    return head


def attach(model: ir.Model, head: ir.Model, kept: Sequence[str] = ()) -> None:
    """Put a head after a graph, in place; the head is used up.

    Args:
        model: The graph; its outputs, and inputs, are the head's inputs of the same name.
        head: The head, which is put after the graph.
        kept: The outputs of the graph that it keeps; the head's come after them.
    """
    graph, more = model.graph, head.graph
    known = {str(value.name): value for value in (*graph.inputs, *graph.outputs)}
    names = [str(value.name) for value in more.outputs]
    _rename(more)
    inputs, outputs = list(more.inputs), list(more.outputs)
    nodes, weights = list(more), dict(more.initializers)
    more.inputs.clear()
    more.outputs.clear()
    more.initializers.clear()
    more.remove(nodes)
    for value in inputs:
        if value.name in known:
            value.replace_all_uses_with(known[str(value.name)])
        else:
            graph.inputs.append(value)
    graph.initializers.update(weights)
    graph.extend(nodes)
    graph.outputs.clear()
    graph.outputs.extend(known[name] for name in kept)
    for name, output in zip(names, outputs, strict=True):
        claim(graph, output, name)
        graph.outputs.append(output)


def _rename(head: ir.Graph) -> None:
    """Give the head's values names that no graph has."""
    kept = {value.name for value in head.inputs}
    values = [*(v for node in head for v in node.outputs), *head.initializers.values()]
    for value in values:
        if value.name not in kept:
            value.name = f"{PREFIX}{value.name}"
    for node in head:
        node.name = f"{PREFIX}{node.name}"


def lower(head: ir.Model, opset: int) -> None:
    """Write a head in an older version of ONNX's operators, in place.

    Raises:
        ExportError: An operator of it is newer.
    """
    if opset >= OPSETS.start:
        return
    moved = [name for since, names in AXES_INPUT.items() if opset < since for name in names]
    for node in list(head.graph):
        if node.op_type in moved and len(node.inputs) > 1:
            _take_axes_inside(node)
        if node.op_type == "Shape" and opset < PART_OF_SHAPE:
            _cut_after(head.graph, node)
        for name, since in ATTRIBUTES.items():
            if opset < since:
                node.attributes.pop(name, None)
    head.opset_imports[""] = opset
    try:
        onnx.checker.check_model(ir.to_proto(head))
    except Exception as e:  # of the checker, which is C++
        raise ExportError(
            f"the model's pooling and layers cannot be had in opset {opset}, which its graph has: "
            f"{said(e)}; export the graph again with opset 18 or newer"
        ) from e


def _take_axes_inside(node: ir.Node) -> None:
    """Give an operator its axes as an attribute instead of an input."""
    axes = node.inputs[1]
    content = ir.convenience.get_const_tensor(axes) if axes is not None else None
    if content is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", content.numpy().tolist())
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)


def _cut_after(graph: ir.Graph, node: ir.Node) -> None:
    """Let a ``Shape`` give all sizes, and cut those out that were asked for."""
    found = [node.attributes.pop(name, None) for name in ("start", "end")]
    limits = [
        default if a is None else a.as_int() for a, default in zip(found, (0, 1 << 31), strict=True)
    ]
    ends = [ir.node("Constant", [], {"value": ir.tensor(np.array([n]))}) for n in limits]
    cut = ir.node("Slice", [node.outputs[0], *(end.outputs[0] for end in ends)])
    node.outputs[0].replace_all_uses_with(cut.outputs[0])
    cut.replace_input_with(0, node.outputs[0])
    graph.insert_after(node, [*ends, cut])
