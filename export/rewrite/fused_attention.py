"""Attention as one operator per layer, in the form whose CPU kernel never holds all scores.

Before: queries, keys and values in heads, their scaled product, a mask, softmax, the product with
the values, the heads joined: each an operator with a tensor of ``[batch, heads, sequence,
sequence]`` or ``[batch, heads, sequence, head size]``.

After, by what the mask hides:

- nothing (images): ``MultiHeadAttention`` (com.microsoft) without a mask, which is flash attention;
- padding: the standard's ``Attention`` with the padding as bias, which is faster on short texts;
  where texts may be long, an ``If`` with flash attention for those without padding;
- later keys (decoders), and all but a window of earlier ones: ``GroupQueryAttention``, whose
  kernel is flash attention too, skips what is later, and shares keys between heads without copies.
  Padding after a text is later than all of it, and needs no mask. An ``If`` takes a batch with
  other padding, as from consumers that pad on the left, to the same operator with the graph's own
  mask, which only that branch computes;
- all but a window on both sides: blocks, see `fmrt.export.rewrite.graph.windowed_attention`;
- anything else, as where positions have a bias (MPNet, T5): ``Attention`` with the sum of what is
  added to the scores.

A layer that is computed for the pooled token alone has few scores, and stays as it is.

What a mask hides is not read off the graph but tried, see `fmrt.export.rewrite.graph.masks`. Where
queries and keys are rotated, the rotation becomes one ``RotaryEmbedding``.

Gain: see docs/performance.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from fmrt.export.rewrite.graph.building import Builder, Listing, all_queries, summed, zero
from fmrt.export.rewrite.graph.layers import Attention, find_attention
from fmrt.export.rewrite.graph.masks import MASK, NONE, PADDING, Masking, Maskings
from fmrt.export.rewrite.graph.rotary import rotated_tokens
from fmrt.export.rewrite.graph.tokens import own_tokens, shared_tokens
from fmrt.export.rewrite.graph.walking import MICROSOFT, present
from fmrt.export.rewrite.graph.windowed_attention import fits_blocks, is_long, windowed

# GroupQueryAttention's kernel asks for a multiple of it as head size, and is flash attention only
# with its second and third output, the keys and values in heads, which older versions require.
HEAD_SIZES = 8
CACHES = 2
# The first opset with ``Attention``. Since 18, where exports begin, no operator that they have has
# changed its meaning.
OPSET = 23
# Tokens above which flash attention is faster than ``Attention``, see docs/performance.md.
SHORT = 256


def fuse_attention(model: ir.Model, longest: int | None = None) -> int:
    """Apply the pass in place, after `simplify_attention`; returns the layers changed.

    Args:
        model: The graph.
        longest: The number of tokens of the longest text, where that is known.
    """
    fusion = _Fusion(model, longest)
    count = sum(fusion.apply(node) for node in list(model.graph) if node.op_type == "Softmax")
    if count:
        model.opset_imports[MICROSOFT] = 1
        model.opset_imports[""] = max(OPSET, model.opset_imports[""])
        CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    return count


@dataclass(frozen=True)
class _Layer:
    """What a form is built from: a layer, and where to build.

    Attributes:
        found: The attention that was found in the graph.
        build: The builder before its last node.
        mask: The graph's input ``[batch, sequence]``, if it has one.
    """

    found: Attention
    build: Builder
    mask: ir.Value | None

    @property
    def queries(self) -> ir.Value:
        return rotated_tokens(self.build, self.found.scores.queries)

    @functools.cached_property
    def bias(self) -> ir.Value:
        """The sum of what is added to the scores."""
        return summed(self.build, self.found.scores.biases)

    def shared(self, heads: ir.Value) -> tuple[ir.Value, int]:
        """Keys or values ``[batch, sequence, hidden]`` before groups share them; their heads."""
        return shared_tokens(self.build, heads)

    def own(self, heads: ir.Value) -> ir.Value:
        """Keys or values ``[batch, sequence, hidden]``, as many heads as the queries have."""
        return own_tokens(self.build, self.found, heads)


class _Fusion:
    def __init__(self, model: ir.Model, longest: int | None) -> None:
        self._graph = model.graph
        self._long = longest is None or longest > SHORT
        self._maskings = Maskings(model)
        self._mask = next((v for v in model.graph.inputs if v.name == MASK), None)
        self._shared: dict[tuple[str | ir.Value, ...], ir.Value] = {}

    def apply(self, softmax: ir.Node) -> bool:
        """Replace the attention around a softmax; False when it is of another form."""
        found = find_attention(softmax)
        if found is None or found.one_query:
            return False
        layer = _Layer(found, Builder(self._graph, found.last), self._mask)
        layer.build.replace(found.joined, self._form(found)(layer))
        return True

    def _form(self, found: Attention) -> Callable[[_Layer], ir.Value]:
        masking = self._maskings.of(found.scores.biases)
        if masking is None or (masking.padding and self._mask is None):
            return _biased
        if masking == NONE:
            return _unmasked
        if masking == PADDING:
            return self._padded
        if masking.after == 0 and found.size % HEAD_SIZES == 0:
            return functools.partial(self._causal, masking=masking)
        if fits_blocks(masking):
            return functools.partial(self._windowed, masking=masking)
        return _biased

    def _causal(self, layer: _Layer, masking: Masking) -> ir.Value:
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
        if masking.before is not None:
            attributes["local_window_size"] = masking.before + 1

        def attend(*bias: ir.Value) -> list[ir.Node]:
            inputs = [q, k, v, None, None, last, total, *([None] * 3 if bias else []), *bias]
            name, outputs = "GroupQueryAttention", 1 + CACHES
            return [ir.node(name, inputs, attributes, domain=MICROSOFT, num_outputs=outputs)]

        if not masking.padding:
            return build.add(*attend())
        at_end = _padded_at_the_end(build, present(layer.mask))
        bias = self._unless(layer, at_end, "padded at the end")
        return build.choose(at_end, attend(), attend(bias))

    def _windowed(self, layer: _Layer, masking: Masking) -> ir.Value:
        build, found = layer.build, layer.found
        q, k, v = layer.queries, layer.own(found.scores.keys), layer.own(found.values)
        long = is_long(build, q, masking)
        bias = self._unless(layer, long, f"long {masking}")
        short = _attention(layer, q, bias)
        mask = layer.mask if masking.padding else None
        if mask is None:
            sizes = build.node("Shape", [q], {"start": 0, "end": 2})
            mask = build.node("Expand", [build.ints(1), sizes])
        heads = (found.heads, found.size, found.scores.scale)
        blocks = windowed(build, (q, k, v), mask, masking, heads)
        return build.choose(long, blocks, [short])

    def _padded(self, layer: _Layer) -> ir.Value:
        build, found, mask = layer.build, layer.found, present(layer.mask)
        q, key = layer.queries, ("padding", str(_positions(found.scores.queries)))
        if not self._long:
            bias = self._once(key, lambda: build.add(*_hidden_keys(build, mask, q)))
            return build.add(_attention(layer, q, bias))
        long = build.node("Greater", [build.length(mask), build.scalar(SHORT)])
        unpadded = build.node("ReduceMin", [mask], {"keepdims": 0})
        unpadded = build.node("Cast", [unpadded], {"to": ir.DataType.BOOL})
        flash = build.node("And", [long, unpadded])
        bias = self._once(key, lambda: build.choose(flash, [zero()], _hidden_keys(build, mask, q)))
        inputs = [q, layer.own(found.scores.keys), layer.own(found.values)]
        whole = ir.node("MultiHeadAttention", inputs, _heads_and_scale(found), domain=MICROSOFT)
        return build.choose(flash, [whole], [_attention(layer, q, bias)])

    def _unless(self, layer: _Layer, condition: ir.Value, name: str) -> ir.Value:
        """The bias of a layer, computed only where ``condition`` is false, for all layers once."""
        key: tuple[str | ir.Value, ...] = (name, *layer.found.scores.biases)
        return self._once(key, lambda: layer.build.choose_or_zero(condition, layer.bias))

    def _once(self, key: tuple[str | ir.Value, ...], make: Callable[[], ir.Value]) -> ir.Value:
        """A bias that the first layer makes and all others of the same ``key`` read."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


def _biased(layer: _Layer) -> ir.Value:
    build, q = layer.build, layer.queries
    bias = build.node("Expand", [layer.bias, all_queries(build, q)])
    return build.add(_attention(layer, q, bias))


def _positions(heads: ir.Value) -> object:
    """Positions of ``[batch, heads, positions, head size]``: a number, or a symbol."""
    return present(heads.shape)[2]


def _hidden_keys(build: Builder, mask: ir.Value, queries: ir.Value) -> list[ir.Node]:
    """The padding as bias, ``[batch, 1, queries, keys]``, for a branch."""
    lowest = build.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
    sizes = all_queries(build, queries)
    branch = Listing()
    hidden = branch.node("Sub", [build.ints(1), mask])
    hidden = branch.node("Cast", [hidden], {"to": ir.DataType.FLOAT})
    row = branch.node("Unsqueeze", [branch.node("Mul", [hidden, lowest]), build.ints(1, 2)])
    branch.node("Expand", [row, sizes])
    return branch.nodes


def _attention(layer: _Layer, queries: ir.Value, bias: ir.Value) -> ir.Node:
    """The standard's operator; keys and values may have fewer heads than queries."""
    found = layer.found
    keys, heads = layer.shared(found.scores.keys)
    values, _ = layer.shared(found.values)
    attributes: dict[str, int | float] = {
        "q_num_heads": found.heads,
        "kv_num_heads": heads,
        "scale": found.scores.scale,
    }
    return ir.node("Attention", [queries, keys, values, bias], attributes)


def _heads_and_scale(found: Attention) -> dict[str, int | float]:
    return {"num_heads": found.heads, "scale": found.scores.scale}


def _unmasked(layer: _Layer) -> ir.Value:
    inputs = [layer.queries, layer.own(layer.found.scores.keys), layer.own(layer.found.values)]
    attributes = _heads_and_scale(layer.found)
    return layer.build.node("MultiHeadAttention", inputs, attributes, MICROSOFT)


def _padded_at_the_end(build: Builder, mask: ir.Value) -> ir.Value:
    """Whether no padding is before a token: as many tokens as the last one's position says."""
    length = build.length(mask)
    end = build.node("Add", [length, build.scalar(1)])
    positions = build.node("Range", [build.scalar(1), end, build.scalar(1)])
    placed = build.node("Mul", [mask, positions])
    last = build.node("ReduceMax", [placed, build.ints(1)], {"keepdims": 0})
    count = build.node("ReduceSum", [mask, build.ints(1)], {"keepdims": 0})
    same = build.node("Cast", [build.node("Equal", [last, count])], {"to": ir.DataType.INT32})
    every = build.node("ReduceMin", [same], {"keepdims": 0})
    return build.node("Cast", [every], {"to": ir.DataType.BOOL})
