"""Attention as one MultiHeadAttention (com.microsoft) that CUDA runs in a fused kernel.

Before: queries, keys and values in heads, their scaled product, a mask, softmax, the product with
the values, the heads joined.

After: ``MultiHeadAttention`` on ``[batch, sequence, hidden]``, in the form that leaves the choice
of a fused kernel to ONNX Runtime:

- without a mask (images): flash attention;
- padding: the number of keys of each text, ``key_padding_mask`` of ``[3 batch + 2]``, for which
  ONNX Runtime takes memory-efficient attention. Texts must be padded on the right, as the runtime
  does. No ``If`` as on the CPU: it would wait for the GPU, and CUDA graphs take none;
- causal: the same, ``unidirectional``;
- any other mask or position bias: ``attention_bias``.

Where queries and keys are rotated, the rotation becomes `RotaryEmbedding` on the same layout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from export.rewrite.building import Builder
from export.rewrite.masks import MASK, Masking, masking_of
from export.rewrite.rotary import rotated_tokens
from export.rewrite.walking import constant, producer, same_axes, single_use

MICROSOFT = "com.microsoft"
HEADS_OUTSIDE = (0, 2, 1, 3)
LAST_TWO_EXCHANGED = (0, 1, 3, 2)


def fuse_attention_for_cuda(model: ir.Model) -> int:
    """Apply the pass in place, behind `simplify_attention`; returns the layers changed."""
    fusion = _Fusion(model)
    count = sum(fusion.apply(node) for node in list(model.graph) if node.op_type == "Softmax")
    if count:
        model.opset_imports[MICROSOFT] = 1
        CommonSubexpressionEliminationPass()(model)
        RemoveUnusedNodesPass()(model)
    return count


@dataclass(frozen=True)
class _Scores:
    """``scale queries @ keys^T`` plus the biases.

    Attributes:
        queries, keys: ``[batch, heads, sequence, head size]``.
        scale: of the product.
        biases: that broadcast to ``[batch, heads, queries, keys]``.
    """

    queries: ir.Value
    keys: ir.Value
    scale: float
    biases: tuple[ir.Value, ...]


@dataclass(frozen=True)
class _Attention:
    """One layer's attention, as found in the graph.

    Attributes:
        scores: before softmax.
        values: ``[batch, heads, sequence, head size]``.
        joined: the result, ``[batch, sequence, hidden]``.
        last: the node that gives it.
    """

    scores: _Scores
    values: ir.Value
    joined: ir.Value
    last: ir.Node


class _Fusion:
    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._original = model.clone()
        self._maskings: dict[str, Masking] = {}
        self._mask = next((v for v in model.graph.inputs if v.name == MASK), None)

    def apply(self, softmax: ir.Node) -> bool:
        """Replace the attention around a softmax; False when it is of another form."""
        found = _find(softmax)
        if found is None:
            return False
        scores = found.scores
        build = Builder(self._model.graph, found.last)
        q, k = (rotated_tokens(build, x) for x in (scores.queries, scores.keys))
        inputs = [q, k, build.tokens(found.values)]
        attributes: dict[str, int | float] = {
            "num_heads": int(str(found.values.shape[1])) if found.values.shape is not None else 0,
            "scale": scores.scale,
        }
        masking = self._masking(scores.biases)
        if masking is Masking.CAUSAL:
            attributes["unidirectional"] = 1
        more = self._mask_inputs(build, masking, scores.biases)
        fused = build.node("MultiHeadAttention", [*inputs, *more], attributes, MICROSOFT)
        build.replace(found.joined, fused)
        return True

    def _masking(self, biases: Sequence[ir.Value]) -> Masking:
        if not biases:
            return Masking.NONE
        if len(biases) > 1:
            return Masking.OTHER
        name = str(biases[0].name)
        if name not in self._maskings:
            self._maskings[name] = masking_of(self._original, name)
        return self._maskings[name]

    def _mask_inputs(
        self, build: Builder, masking: Masking, biases: Sequence[ir.Value]
    ) -> list[ir.Value | None]:
        """The inputs behind query, key and value: bias, key padding mask, attention bias."""
        if masking is Masking.NONE:
            return []
        if masking is Masking.OTHER:
            return [None, None, functools.reduce(lambda a, b: build.node("Add", [a, b]), biases)]
        return [None, _key_lengths(build, self._mask)]


def _key_lengths(build: Builder, mask: ir.Value | None) -> ir.Value:
    """int32 ``[3 batch + 2]``: keys of each text, then where each text's queries and keys start."""
    counts = build.node("Cast", [mask], {"to": ir.DataType.INT32})
    lengths = build.node("ReduceSum", [counts, build.ints(1)], {"keepdims": 0})
    batch = build.node("Shape", [mask], {"start": 0, "end": 1})
    length = build.node("Shape", [mask], {"start": 1, "end": 2})
    scalar = build.node("Squeeze", [length])
    texts = build.node("Squeeze", [build.node("Add", [batch, build.ints(1)])])
    limit = build.node("Mul", [texts, scalar])
    starts = build.node("Range", [build.scalar(0), limit, scalar])
    starts = build.node("Cast", [starts], {"to": ir.DataType.INT32})
    return build.node("Concat", [lengths, starts, starts], {"axis": 0})


def _find(softmax: ir.Node) -> _Attention | None:
    scores = _scores(softmax.inputs[0])
    attended = single_use(softmax.outputs[0], "MatMul", 0)
    heads = single_use(attended.outputs[0], "Transpose", 0) if attended else None
    joined = single_use(heads.outputs[0], "Reshape", 0) if heads else None
    if scores is None or attended is None or heads is None or joined is None:
        return None
    if tuple(heads.attributes["perm"].as_ints()) != HEADS_OUTSIDE:
        return None
    values = attended.inputs[1]
    out = joined.outputs[0]
    if values is None or out.shape is None or len(out.shape) != 3:  # noqa: PLR2004
        return None
    if not (same_axes(scores.queries, values) and same_axes(scores.keys, values)):
        return None
    return _Attention(scores, values, out, joined)


def _scores(value: ir.Value | None) -> _Scores | None:
    """Take ``scale q @ k^T + bias + bias`` apart, with the scale on the queries or the product."""
    biases: list[ir.Value] = []
    while (add := producer(value, "Add")) is not None:
        rest = next((i for i in add.inputs if _leads_to_product(i)), None)
        other = next((i for i in add.inputs if i is not rest), None)
        if rest is None or other is None:
            return None
        biases.append(other)
        value = rest
    value, outer = _unscaled(value)
    matmul = producer(value, "MatMul")
    turned = producer(matmul.inputs[1], "Transpose") if matmul is not None else None
    if matmul is None or turned is None:
        return None
    queries, inner = _unscaled(matmul.inputs[0])
    keys = turned.inputs[0]
    if tuple(turned.attributes["perm"].as_ints()) != LAST_TWO_EXCHANGED or None in (queries, keys):
        return None
    return _Scores(queries, keys, inner * outer, tuple(biases))  # type: ignore[arg-type]  # above


def _leads_to_product(value: ir.Value | None) -> bool:
    while (add := producer(value, "Add")) is not None:
        value = next((i for i in add.inputs if _leads_to_product(i)), None)
    return producer(_unscaled(value)[0], "MatMul") is not None


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What is multiplied or divided by a constant number, and that number as a factor."""
    for op_type in ("Mul", "Div"):
        node = producer(value, op_type)
        scale = constant(node.inputs[1]) if node is not None else None
        if node is not None and scale is not None and scale.size == 1:
            number = float(np.reshape(scale, -1)[0])
            return node.inputs[0], number if op_type == "Mul" else 1 / number
    return value, 1.0
