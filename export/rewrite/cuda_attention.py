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

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder
from fmrt.export.rewrite.graph.layers import find_attention
from fmrt.export.rewrite.graph.masks import CAUSAL, MASK, NONE, PADDING, Masking, Maskings
from fmrt.export.rewrite.graph.rotary import rotated_tokens
from fmrt.export.rewrite.graph.walking import MICROSOFT

# Inputs after query, key and value up to the key padding mask.
KEY_MASK = 2


def fuse_attention_for_cuda(model: ir.Model) -> int:
    """Apply the pass in place, after `simplify_attention`; returns the layers changed."""
    fusion = _Fusion(model)
    count = sum(fusion.apply(node) for node in list(model.graph) if node.op_type == "Softmax")
    if count:
        model.opset_imports[MICROSOFT] = 1
        CommonSubexpressionEliminationPass()(model)
        RemoveUnusedNodesPass()(model)
    return count


def masks_padding_alone(attention: ir.Node) -> bool:
    """Whether a layer that this pass made hides the padding of texts and nothing else."""
    _, _, _, *masks = attention.inputs
    causal = attention.attributes.get_int("unidirectional", 0)
    return len(masks) == KEY_MASK and masks[-1] is not None and not causal


class _Fusion:
    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._maskings = Maskings(model)
        self._mask = next((v for v in model.graph.inputs if v.name == MASK), None)

    def apply(self, softmax: ir.Node) -> bool:
        """Replace the attention around a softmax; False when it is of another form."""
        found = find_attention(softmax)
        if found is None:
            return False
        scores = found.scores
        build = Builder(self._model.graph, found.last)
        q, k = (rotated_tokens(build, x) for x in (scores.queries, scores.keys))
        inputs = [q, k, build.tokens(found.values)]
        attributes: dict[str, int | float] = {
            "num_heads": found.heads,
            "scale": scores.scale,
        }
        masking = self._maskings.of(scores.biases)
        if masking == CAUSAL:
            attributes["unidirectional"] = 1
        more = self._mask_inputs(build, masking, scores.biases)
        fused = build.node("MultiHeadAttention", [*inputs, *more], attributes, MICROSOFT)
        build.replace(found.joined, fused)
        return True

    def _mask_inputs(
        self, build: Builder, masking: Masking | None, biases: Sequence[ir.Value]
    ) -> list[ir.Value | None]:
        """The inputs after query, key and value: bias, key padding mask, attention bias."""
        if masking == NONE:
            return []
        if masking in (PADDING, CAUSAL):
            return [None, _key_lengths(build, self._mask)]
        return [None, None, functools.reduce(lambda a, b: build.node("Add", [a, b]), biases)]


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
