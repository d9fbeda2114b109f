"""Attention as one operator per layer, for which CUDA has a fused kernel.

Before: queries, keys and values in heads, their scaled product, a mask, softmax, the product with
the values, the heads joined.

After, a choice of forms (`FORMS`): ``MultiHeadAttention`` (com.microsoft) or the standard's
``Attention``, on ``[batch, sequence, hidden]``; the former on the product of `pack_projections`,
whose bias it adds where it takes the three apart; or what there was before. Which kernel is right
and fast differs by GPU, by precision and by ONNX Runtime's version, so a variant has a graph of
each, and ``fmrt tune`` chooses on the GPU. `safest_first` says which one goes first until then:
``MultiHeadAttention`` where it was right on an H100 with ONNX Runtime 1.31.1 (`_PROVEN`), and else
the plain operators, which were right in fp32 there. The forms leave the choice of a fused
kernel to ONNX Runtime:

- without a mask (images): flash attention;
- padding: the number of keys of each text. ``MultiHeadAttention`` takes it as ``key_padding_mask``
  of ``[3 batch + 2]``, and runs memory-efficient attention. ``Attention`` of opset 24 takes it as
  ``nonpad_kv_seqlen`` of ``[batch]``, and runs flash attention in half precision and
  memory-efficient attention in fp32. Texts must be padded on the right, as the runtime does. No
  ``If`` as on the CPU: it would wait for the GPU, and CUDA graphs take none;
- causal: an attribute, and no mask, since padding on the right is later than every token;
- any other mask or position bias: a bias.

Where queries and keys are rotated, the rotation becomes `RotaryEmbedding` on the same layout.
``Attention`` takes keys and values that groups of heads share as they are; for
``MultiHeadAttention`` they are repeated. A layer that is computed for the pooled token alone has
one query a text. It stays in plain operators where ``MultiHeadAttention`` may go first, since no
GPU has shown that kernel with fewer queries than keys; the other forms have it in one operator too.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder, all_queries, summed
from fmrt.export.rewrite.graph.layers import Attention, find_attention
from fmrt.export.rewrite.graph.masks import CAUSAL, MASK, NONE, PADDING, Masking, Maskings
from fmrt.export.rewrite.graph.rotary import rotated_tokens
from fmrt.export.rewrite.graph.tokens import own_tokens, shared_tokens
from fmrt.export.rewrite.graph.walking import MICROSOFT, present, producer
from fmrt.export.rewrite.packed_projections import find_packed, take_packed

# The forms of attention, by the operator.
CONTRIB, STANDARD, PLAIN = "MultiHeadAttention", "Attention", "plain"
PACKED = "MultiHeadAttention-packed"
FORMS = (CONTRIB, STANDARD, PLAIN, PACKED)
# Precisions in which ``MultiHeadAttention`` was right, by masking. It has kernels of all three.
_PROVEN: dict[Masking | None, tuple[str, ...]] = {NONE: ("fp32", "fp16"), PADDING: ("fp16",)}
# The first opsets with ``Attention``, and with its number of keys. Since 18, where exports begin,
# no operator that they have has changed its meaning.
OPSET, LENGTHS_OPSET = 23, 24


def safest_first(model: ir.Model, precision: str, maskings: Maskings) -> tuple[str, ...]:
    """The forms that a graph may take, the one to take unless a GPU has measured others first.

    Args:
        model: The graph after `simplify_attention`, in fp32.
        maskings: What its masks mean.
        precision: What it is to be computed in: ``fp32``, ``fp16`` or ``bf16``.

    Returns:
        `FORMS` in that order, without those that do not fit; the plain operators alone where there
        is no attention.
    """
    found_layers = [a for a in map(find_attention, _softmaxes(model)) if a is not None]
    layers = [layer for layer in found_layers if not layer.one_query]
    if not layers:
        return (PLAIN, STANDARD) if found_layers else (PLAIN,)
    found = {maskings.of(layer.scores.biases) for layer in layers}
    proven = all(precision in _PROVEN.get(masking, ()) for masking in found)
    order = (CONTRIB, PLAIN, STANDARD) if proven else (PLAIN, STANDARD, CONTRIB)
    whole = all(_split(layer) is not None for layer in layers) and CAUSAL not in found
    return (*order, PACKED) if whole else order


def fuse_attention_for_cuda(
    model: ir.Model, form: str = CONTRIB, maskings: Maskings | None = None
) -> int:
    """Apply the pass in place, after `simplify_attention`; returns the layers changed.

    Args:
        model: The graph, in fp32.
        form: One of `FORMS`.
        maskings: What the masks of the graph mean, where that has been found out already.
    """
    if form == PLAIN:
        return 0
    fusion = _Fusion(model, form, maskings or Maskings(model))
    count = sum(fusion.apply(node) for node in _softmaxes(model))
    if count:
        model.opset_imports[MICROSOFT] = 1
        model.opset_imports[""] = max(fusion.opset, model.opset_imports[""])
        CommonSubexpressionEliminationPass()(model)
        RemoveUnusedNodesPass()(model)
    return count


def take_apart(model: ir.Model) -> None:
    """Give ``MultiHeadAttention`` apart what it takes in one: the CPU's has no kernel for that."""
    for node in list(model.graph):
        if node.op_type != CONTRIB or node.inputs[1] is not None:
            continue
        build = Builder(model.graph, node)
        split = ir.node("Split", [node.inputs[0], build.ints(1, 1, 1)], {"axis": 3}, num_outputs=3)
        build.add(split)
        for place, part in enumerate(split.outputs):
            node.replace_input_with(place, build.node("Reshape", [part, build.ints(0, 0, -1)]))


def _split(layer: Attention) -> ir.Node | None:
    """What gives a layer's queries, keys and values, where that is one product, unrotated."""
    heads = (layer.scores.queries, layer.scores.keys, layer.values)
    turned = [producer(value, "Transpose") for value in heads]
    shaped = [producer(t.inputs[0], "Reshape") if t is not None else None for t in turned]
    tokens = [node.inputs[0] for node in shaped if node is not None]
    found = [value for value in tokens if value is not None]
    return find_packed(*found) if len(found) == len(heads) else None


def _softmaxes(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "Softmax"]


class _Fusion:
    def __init__(self, model: ir.Model, form: str, maskings: Maskings) -> None:
        self.opset = 0
        self._model = model
        self._form = form
        ways = {CONTRIB: self._contrib, STANDARD: self._standard, PACKED: self._packed}
        self._attend = ways[form]
        self._maskings = maskings
        self._mask = next((v for v in model.graph.inputs if v.name == MASK), None)

    def apply(self, softmax: ir.Node) -> bool:
        """Replace the attention around a softmax; False when it is of another form."""
        found = find_attention(softmax)
        if found is None or (found.one_query and self._form == CONTRIB):
            return False
        build = Builder(self._model.graph, found.last)
        masking = self._maskings.of(found.scores.biases)
        known = masking if masking in (NONE, PADDING, CAUSAL) else None
        build.replace(found.joined, self._attend(build, found, known))
        return True

    def _contrib(self, build: Builder, found: Attention, known: Masking | None) -> ir.Value:
        queries = rotated_tokens(build, found.scores.queries)
        keys, values = (own_tokens(build, found, x) for x in (found.scores.keys, found.values))
        inputs = [queries, keys, values, None, *self._hidden(build, found, known)]
        attributes = {
            "num_heads": found.heads,
            "scale": found.scores.scale,
            "unidirectional": int(known == CAUSAL),
        }
        return build.node("MultiHeadAttention", _trimmed(inputs), attributes, MICROSOFT)

    def _packed(self, build: Builder, found: Attention, known: Masking | None) -> ir.Value:
        if found.one_query:
            return self._contrib(build, found, known)
        packed = take_packed(build, present(_split(found)))
        bias = None
        if packed.bias is not None:
            bias = build.constant(f"{found.joined.name}_projection_bias", packed.bias)
        inputs = [packed.product, None, None, bias, *self._hidden(build, found, known)]
        attributes = {"num_heads": found.heads, "scale": found.scores.scale}
        return build.node("MultiHeadAttention", _trimmed(inputs), attributes, MICROSOFT)

    def _hidden(
        self, build: Builder, found: Attention, known: Masking | None
    ) -> tuple[ir.Value | None, ir.Value | None]:
        """``MultiHeadAttention``'s padding and bias."""
        if known == PADDING:
            return _key_lengths(build, self._mask, found.one_query), None
        return None, summed(build, found.scores.biases) if known is None else None

    def _standard(self, build: Builder, found: Attention, known: Masking | None) -> ir.Value:
        queries = rotated_tokens(build, found.scores.queries)
        keys, heads = shared_tokens(build, found.scores.keys)
        values, _ = shared_tokens(build, found.values)
        more: list[ir.Value | None] = []
        opset = OPSET
        if known == PADDING:
            mask = build.node("Cast", [self._mask], {"to": ir.DataType.INT64})
            lengths = build.node("ReduceSum", [mask, build.ints(1)], {"keepdims": 0})
            more, opset = [None, None, None, lengths], LENGTHS_OPSET
        elif known is None:
            bias = summed(build, found.scores.biases)
            more = [build.node("Expand", [bias, all_queries(build, queries)])]
        self.opset = max(self.opset, opset)
        attributes = {
            "q_num_heads": found.heads,
            "kv_num_heads": heads,
            "scale": found.scores.scale,
            "is_causal": int(known == CAUSAL),
        }
        return build.node("Attention", [queries, keys, values, *more], attributes)


def _trimmed(inputs: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Without the absent ones at the end."""
    last = max(place for place, value in enumerate(inputs) if value is not None)
    return list(inputs[: last + 1])


def _key_lengths(build: Builder, mask: ir.Value | None, one_query: bool) -> ir.Value:
    """int32 ``[3 batch + 2]``: keys of each text, then where each text's queries and keys start."""
    counts = build.node("Cast", [mask], {"to": ir.DataType.INT32})
    lengths = build.node("ReduceSum", [counts, build.ints(1)], {"keepdims": 0})
    batch = build.node("Shape", [mask], {"start": 0, "end": 1})
    texts = build.node("Squeeze", [build.node("Add", [batch, build.ints(1)])])
    keys = _starts(build, texts, build.length(mask))
    queries = _starts(build, texts, build.scalar(1)) if one_query else keys
    return build.node("Concat", [lengths, queries, keys], {"axis": 0})


def _starts(build: Builder, texts: ir.Value, length: ir.Value) -> ir.Value:
    """The multiples of a length, int32, as many as ``texts``."""
    limit = build.node("Mul", [texts, length])
    starts = build.node("Range", [build.scalar(0), limit, length])
    return build.node("Cast", [starts], {"to": ir.DataType.INT32})
