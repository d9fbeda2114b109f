"""Attention as one operator a layer, in the form whose CPU kernel never holds all scores.

Before: queries, keys and values in heads, their scaled product, a mask, softmax, the product with
the values, the heads joined: each an operator with a tensor of ``[batch, heads, sequence,
sequence]`` or ``[batch, heads, sequence, head size]``.

After, by what the mask hides:

- nothing (images): ``MultiHeadAttention`` (com.microsoft) without a mask, which is flash attention;
- padding: an ``If`` on the attention mask; the same for a batch without padding, and with the
  padding as key mask for any other;
- later keys (decoders), and all but a window of earlier ones: ``GroupQueryAttention``, whose
  kernel is flash attention too, skips what is later, and shares keys between heads without copies.
  Padding behind a text is later than all of it, and needs no mask. An ``If`` takes a batch with
  other padding, as from consumers that pad on the left, to the same operator with the graph's own
  mask, which only that branch computes;
- all but a window on both sides: blocks, see `export.rewrite.windowed_attention`.

Anything else, such as a position bias, stays as it is. What a mask hides is not read off the graph
but tried, see `export.rewrite.masks`. Where queries and keys are rotated, the rotation becomes one
``RotaryEmbedding``.

Gain: see docs/performance.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from export.rewrite.building import Builder
from export.rewrite.layers import Attention, find_attention, ungrouped
from export.rewrite.masks import MASK, NONE, PADDING, Masking, Maskings
from export.rewrite.rotary import rotated_tokens
from export.rewrite.windowed_attention import fits_blocks, is_long, windowed

MICROSOFT = "com.microsoft"
# GroupQueryAttention's kernel asks for a multiple of it as head size, and is flash attention only
# with its second and third output, the keys and values in heads, which older versions require.
HEAD_SIZES = 8
CACHES = 2


def fuse_attention(model: ir.Model) -> int:
    """Apply the pass in place, behind `simplify_attention`; returns the layers changed."""
    fusion = _Fusion(model)
    count = sum(fusion.apply(node) for node in list(model.graph) if node.op_type == "Softmax")
    if count:
        model.opset_imports[MICROSOFT] = 1
        CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    return count


@dataclass(frozen=True)
class _Layer:
    """What a form is built from: a layer, its mask, and where to build.

    Attributes:
        found: in the graph.
        masking: what its biases hide.
        build: in front of its last node.
        mask: the graph's input ``[batch, sequence]``, if it has one.
    """

    found: Attention
    masking: Masking
    build: Builder
    mask: ir.Value | None

    @property
    def queries(self) -> ir.Value:
        return rotated_tokens(self.build, self.found.scores.queries)

    @functools.cached_property
    def bias(self) -> ir.Value:
        """The sum of what is added to the scores."""
        biases = self.found.scores.biases
        return functools.reduce(lambda a, b: self.build.node("Add", [a, b]), biases)

    def shared(self, heads: ir.Value) -> tuple[ir.Value, int]:
        """Keys or values ``[batch, sequence, hidden]`` before groups share them; their heads."""
        few = ungrouped(heads)
        assert few.shape is not None  # noqa: S101  # seen by `find_attention` or `ungrouped`
        return rotated_tokens(self.build, few), int(str(few.shape[1]))

    def own(self, heads: ir.Value) -> ir.Value:
        """Keys or values ``[batch, sequence, hidden]``, as many heads as the queries have."""
        tokens, count = self.shared(heads)
        times, size = self.found.heads // count, self.found.size
        if times == 1:
            return tokens
        apart = self.build.node("Reshape", [tokens, self.build.ints(0, 0, count, 1, size)])
        repeated = self.build.node("Expand", [apart, self.build.ints(1, 1, 1, times, 1)])
        return self.build.node("Reshape", [repeated, self.build.ints(0, 0, -1)])


class _Fusion:
    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._maskings = Maskings(model)
        self._mask = next((v for v in model.graph.inputs if v.name == MASK), None)
        self._lazy: dict[tuple[str | ir.Value, ...], ir.Value] = {}

    def apply(self, softmax: ir.Node) -> bool:
        """Replace the attention around a softmax; False when it is of another form."""
        found = find_attention(softmax)
        masking = self._maskings.of(found.scores.biases) if found is not None else None
        if found is None or masking is None or (masking.padding and self._mask is None):
            return False
        form = self._form(masking, found)
        if form is None:
            return False
        layer = _Layer(found, masking, Builder(self._graph, found.last), self._mask)
        layer.build.replace(found.joined, form(layer))
        return True

    def _form(self, masking: Masking, found: Attention) -> Callable[[_Layer], ir.Value] | None:
        if masking == NONE:
            return _unmasked
        if masking == PADDING:
            return _padded
        if masking.after == 0 and found.size % HEAD_SIZES == 0:
            return self._causal
        return self._windowed if fits_blocks(masking) else None

    def _causal(self, layer: _Layer) -> ir.Value:
        build = layer.build
        q, (k, heads) = layer.queries, layer.shared(layer.found.scores.keys)
        v, _ = layer.shared(layer.found.values)
        length = build.node("Shape", [q], {"start": 1, "end": 2})
        total = build.node("Cast", [build.node("Squeeze", [length])], {"to": ir.DataType.INT32})
        batch = build.node("Shape", [q], {"start": 0, "end": 1})
        ends = build.node("Sub", [length, build.ints(1)])
        last = build.node("Cast", [build.node("Expand", [ends, batch])], {"to": ir.DataType.INT32})
        attributes: dict[str, int | float] = {
            "num_heads": layer.found.heads,
            "kv_num_heads": heads,
            "scale": layer.found.scores.scale,
        }
        if layer.masking.before is not None:
            attributes["local_window_size"] = layer.masking.before + 1

        def attend(*bias: ir.Value) -> list[ir.Node]:
            inputs = [q, k, v, None, None, last, total, *([None] * 3 if bias else []), *bias]
            name, outputs = "GroupQueryAttention", 1 + CACHES
            return [ir.node(name, inputs, attributes, domain=MICROSOFT, num_outputs=outputs)]

        if not layer.masking.padding:
            return build.add(*attend())
        assert layer.mask is not None  # noqa: S101  # seen by `apply`
        at_end = _padded_at_the_end(build, layer.mask)
        bias = self._unless(build, at_end, "padded at the end", layer)
        return build.choose(at_end, attend(), attend(bias))

    def _windowed(self, layer: _Layer) -> ir.Value:
        build, found = layer.build, layer.found
        q, k, v = layer.queries, layer.own(found.scores.keys), layer.own(found.values)
        long = is_long(build, q, layer.masking)
        bias = self._unless(build, long, f"long {layer.masking}", layer)
        attributes = _heads_and_scale(found)
        whole = [q, k, v, None, None, bias]
        short = ir.node("MultiHeadAttention", whole, attributes, domain=MICROSOFT)
        mask = layer.mask if layer.masking.padding else None
        if mask is None:
            sizes = build.node("Shape", [q], {"start": 0, "end": 2})
            mask = build.node("Expand", [build.ints(1), sizes])
        heads = (found.heads, found.size, found.scores.scale)
        blocks = windowed(build, (q, k, v), mask, layer.masking, heads)
        return build.choose(long, blocks, [short])

    def _unless(self, build: Builder, condition: ir.Value, name: str, layer: _Layer) -> ir.Value:
        """The bias of a layer, computed only where ``condition`` is false, for all layers once."""
        key: tuple[str | ir.Value, ...] = (name, *layer.found.scores.biases)
        if key not in self._lazy:
            self._lazy[key] = build.choose_or_zero(condition, layer.bias)
        return self._lazy[key]


def _heads_and_scale(found: Attention) -> dict[str, int | float]:
    return {"num_heads": found.heads, "scale": found.scores.scale}


def _unmasked(layer: _Layer) -> ir.Value:
    inputs = [layer.queries, layer.own(layer.found.scores.keys), layer.own(layer.found.values)]
    attributes = _heads_and_scale(layer.found)
    return layer.build.node("MultiHeadAttention", inputs, attributes, MICROSOFT)


def _padded(layer: _Layer) -> ir.Value:
    build, found = layer.build, layer.found
    inputs = [layer.queries, layer.own(found.scores.keys), layer.own(found.values)]
    whole = build.node("ReduceMin", [layer.mask], {"keepdims": 0})
    unpadded = build.node("Cast", [whole], {"to": ir.DataType.BOOL})
    key_mask = build.node("Cast", [layer.mask], {"to": ir.DataType.INT32})

    def attend(extra: Sequence[ir.Value | None]) -> list[ir.Node]:
        attributes = _heads_and_scale(found)
        both = [*inputs, *extra]
        return [ir.node("MultiHeadAttention", both, attributes, domain=MICROSOFT)]

    return build.choose(unpadded, attend([]), attend([None, key_mask]))


def _padded_at_the_end(build: Builder, mask: ir.Value) -> ir.Value:
    """Whether no padding is in front of a token: as many tokens as the last one's position says."""
    length = build.length(mask)
    end = build.node("Add", [length, build.scalar(1)])
    positions = build.node("Range", [build.scalar(1), end, build.scalar(1)])
    placed = build.node("Mul", [mask, positions])
    last = build.node("ReduceMax", [placed, build.ints(1)], {"keepdims": 0})
    count = build.node("ReduceSum", [mask, build.ints(1)], {"keepdims": 0})
    same = build.node("Cast", [build.node("Equal", [last, count])], {"to": ir.DataType.INT32})
    every = build.node("ReduceMin", [same], {"keepdims": 0})
    return build.node("Cast", [every], {"to": ir.DataType.BOOL})
