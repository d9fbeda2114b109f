"""Texts without their padding on CUDA: between embeddings and pooling, real tokens alone.

Before: the graph of `fuse_attention_for_cuda`, in single or half precision: every layer computes
``[batch, sequence, hidden]``, padding included.

After: ``RemovePadding`` (com.microsoft) where the embeddings are summed up, ``[tokens, hidden]``
behind it, ``PackedMultiHeadAttention`` with where each text begins instead of a mask, and
``RestorePadding``, which puts zeros in the padding's place, before what reads the result.

All or nothing: every layer's attention must hide padding and nothing else, and what is between them
must treat each token by itself. Rotary embedding is left out: its operator counts positions along
the sequence. So are position biases, with which the packed kernels are not fused. Texts must be
padded on the right, as the runtime does.

The three operators have CUDA kernels only, in fp32 and fp16. `RemovePadding` waits for the number
of tokens, so that no CUDA graph can be recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.export.rewrite.cuda_attention import masks_padding_alone
from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.masks import MASK
from fmrt.export.rewrite.graph.walking import MICROSOFT, constant_rank, present

ATTENTION = "MultiHeadAttention"
# Standard operators that treat each number by itself, of one input and of two.
UNARY = frozenset({"Cast", "Erf", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"})
BINARY = frozenset({"Add", "Div", "Mul", "Pow", "Sub"})
# Those that treat the features of a token together, and where they do.
ALONG_LAST: dict[str, Callable[[ir.Node], bool]] = {
    "MatMul": lambda node: constant_rank(node.inputs[1]) == MATRIX,
    "LayerNormalization": lambda node: node.attributes.get_int("axis", -1) == -1,
}
# What the operators that remove and restore padding take.
TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# Ranks of ``[batch, sequence, hidden]`` and of a product's weight.
PADDED = 3
MATRIX = 2


def remove_padding(model: ir.Model) -> int:
    """Apply the pass in place, after `fuse_attention_for_cuda`; returns the layers changed."""
    graph = model.graph
    layers = [node for node in graph if node.op_type == ATTENTION]
    mask = next((v for v in graph.inputs if v.name == MASK), None)
    if mask is None or not layers or not all(map(masks_padding_alone, layers)):
        return 0
    for node in itertools.takewhile(lambda node: node is not layers[0], graph):
        start = node.outputs[0]
        inside = _by_token(graph, start)
        if inside.issuperset(layers):
            _pack(graph, mask, start, inside)
            RemoveUnusedNodesPass()(model)
            return len(layers)
    return 0


def _by_token(graph: ir.Graph, start: ir.Value) -> set[ir.Node]:
    """The nodes between a value and the graph's outputs that can do without its padding."""
    found: set[ir.Node] = set()
    packed: set[ir.Value | None] = {start} if _is_padded(start) else set()
    for node in graph:
        if not packed.isdisjoint(node.inputs) and _keeps_tokens_apart(node, packed):
            found.add(node)
            packed.update(out for out in node.outputs if not out.is_graph_output())
    return found


def _is_padded(value: ir.Value) -> bool:
    """Whether a value is ``[batch, sequence, hidden]``, of a type that can be packed."""
    return value.dtype in TYPES and value.shape is not None and len(value.shape) == PADDED


def _keeps_tokens_apart(node: ir.Node, packed: set[ir.Value | None]) -> bool:
    """Whether a node gives each token's row from that token's rows in ``packed`` alone."""
    op_type = node.op_type if node.domain == "" else f"{node.domain}.{node.op_type}"
    if op_type == f"{MICROSOFT}.{ATTENTION}":
        needed = node.inputs[:3]
    elif op_type in BINARY:
        needed = [i for i in node.inputs if not _is_row(i)]
    elif op_type in UNARY or (op_type in ALONG_LAST and ALONG_LAST[op_type](node)):
        needed = node.inputs[:1]
    else:
        return False
    return packed.issuperset(needed) and all(map(_is_padded, node.outputs))


def _is_row(value: ir.Value | None) -> bool:
    """Whether a value is the same for every token: a constant number or one for each feature."""
    return constant_rank(value) in (0, 1)


def _pack(graph: ir.Graph, mask: ir.Value, start: ir.Value, inside: AbstractSet[ir.Node]) -> None:
    """Let the nodes ``inside`` compute the real tokens of ``start``."""
    nodes = [node for node in graph if node in inside]
    values = [value for node in nodes for value in node.outputs]
    build = Builder(graph, nodes[0])
    removal = ir.node(
        "RemovePadding", [start, _token_counts(build, mask)], domain=MICROSOFT, num_outputs=4
    )
    build.add(removal)
    tokens, offsets, starts, longest = removal.outputs
    tokens.type = start.type
    for value in (offsets, starts, longest):
        value.type = ir.TensorType(ir.DataType.INT32)
    for use in list(start.uses()):
        if use.node in inside:
            use.node.replace_input_with(use.idx, tokens)
    for value in values:
        _restore(graph, value, offsets, inside)
    for value in (tokens, *values):
        hidden = present((start if value is tokens else value).shape)
        value.shape = ir.Shape(["tokens", hidden[-1]])
    for node in nodes:
        if node.op_type == ATTENTION:
            inputs = [*node.inputs[:3], None, offsets, starts]
            attributes = {name: node.attributes[name].value for name in ("num_heads", "scale")}
            at = Builder(graph, node)
            packed = at.node("PackedMultiHeadAttention", inputs, attributes, MICROSOFT)
            at.replace(node.outputs[0], packed)


def _token_counts(build: Builder, mask: ir.Value) -> ir.Value:
    """int32 ``[batch]``: tokens of each text; one where it has none, as kernels expect some."""
    counts = build.node("ReduceSum", [mask, build.ints(1)], {"keepdims": 0})
    counts = build.node("Max", [counts, build.ints(1)])
    return build.node("Cast", [counts], {"to": ir.DataType.INT32})


def _restore(
    graph: ir.Graph, value: ir.Value, offsets: ir.Value, inside: AbstractSet[ir.Node]
) -> None:
    """Give the padding back to what reads a packed value outside, and to the graph's outputs."""
    outside = [use for use in value.uses() if use.node not in inside]
    producer = value.producer()
    if producer is None or not (outside or value.is_graph_output()):
        return
    restoring = ir.node("RestorePadding", [value, offsets], domain=MICROSOFT)
    graph.insert_after(producer, restoring)
    restored = restoring.outputs[0]
    restored.shape, restored.type = value.shape, value.type
    restored.name, value.name = value.name, f"{value.name}_packed"
    for use in outside:
        use.node.replace_input_with(use.idx, restored)
    for index, out in enumerate(graph.outputs):
        if out is value:
            graph.outputs[index] = restored
