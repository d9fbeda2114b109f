"""Attention over unpadded keys as MultiHeadAttention, which picks flash attention by itself.

Before: queries, keys and values split into heads, their product, the padding's bias, softmax, the
product with the values, and the heads joined again, each an operator with a tensor of
``[batch, heads, sequence, sequence]`` or ``[batch, heads, sequence, head size]``.

After: one ``MultiHeadAttention`` (com.microsoft) a layer, in two forms: without a mask for a batch
without padding, whose kernel is flash attention and never holds all scores, and with the padding
as key mask for any other. An ``If`` on the attention mask chooses.

It applies where attention is masked by padding alone. Whether it is, is not read off the graph but
tried: the part of the graph that computes the mask runs on random padding.

Gain: see docs/performance.md.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import RewriteRuleClassBase, RewriteRuleSet, Var

MICROSOFT = "com.microsoft"
MASK = "attention_mask"
HEADS_OUTSIDE = [0, 2, 1, 3]
LAST_TWO_EXCHANGED = [0, 1, 3, 2]
# Ranks of [batch, sequence, hidden] and [batch, heads, sequence, head size].
TOKENS, HEADS = 3, 4
# Batch and sequence sizes on which the mask is tried, and what counts as minus infinity there.
TRIALS = ((1, 3), (4, 7), (3, 2))
MASKED = -1e30


def fuse_attention(model: ir.Model) -> int:
    """Apply the pass in place, behind `simplify_attention`; returns the layers changed."""
    if all(value.name != MASK for value in model.graph.inputs):
        return 0
    count = int(RewriteRuleSet([_PaddedAttention.rule(model)]).apply_to_model(model))
    if count:
        model.opset_imports[MICROSOFT] = 1
        CommonSubexpressionEliminationPass()(model)
        RemoveUnusedNodesPass()(model)
    return count


class _PaddedAttention(RewriteRuleClassBase):  # type: ignore[misc]  # onnxscript has no types
    """One layer's attention, from the projections to the joined heads."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(remove_nodes=False)
        self._mask = next(value for value in model.graph.inputs if value.name == MASK)
        self._original = model.clone()
        self._tried: dict[str | None, bool] = {}
        self._layers = itertools.count()

    def pattern(self, op: Any, q: Any, k: Any, v: Any, scale: Any, bias: Any) -> Any:
        def heads(x: Any, shape: str, name: str) -> Any:
            split = op.Reshape(x, Var(shape), _allow_other_attributes=True)
            return op.Transpose(split, perm=HEADS_OUTSIDE, _outputs=[name])

        queries, keys, values = (
            heads(q, "q_shape", "queries"),
            heads(k, "k_shape", "keys"),
            heads(v, "v_shape", "values"),
        )
        turned = op.Transpose(keys, perm=LAST_TWO_EXCHANGED)
        scores = op.Add(op.MatMul(op.Mul(queries, scale), turned), bias)
        attended = op.MatMul(op.Softmax(scores, axis=-1), values)
        joined = op.Transpose(attended, perm=HEADS_OUTSIDE)
        return op.Reshape(joined, Var("shape"), _allow_other_attributes=True, _outputs=["joined"])

    def check(
        self,
        _: Any,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        scale: ir.Value,
        bias: ir.Value,
        queries: ir.Value,
        keys: ir.Value,
        values: ir.Value,
        joined: ir.Value,
        **__: Any,
    ) -> bool:
        flat = all(_same_shape(x, q, TOKENS) for x in (q, k, v, joined))
        split = all(_same_shape(x, queries, HEADS) for x in (queries, keys, values))
        # Masks of other positions, such as a sound's samples, are not what the kernel takes.
        # The batch axis may go by another symbol in the mask, where pooling leaves it open.
        mask = self._mask.shape
        aligned = q.shape is not None and mask is not None and mask[1] == q.shape[1]
        known = aligned and split and _heads(queries) is not None and _scalar(scale) is not None
        return flat and known and self._is_padding(bias)

    def rewrite(
        self,
        op: Any,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        scale: ir.Value,
        queries: ir.Value,
        **_: Any,
    ) -> Any:
        attributes = {"num_heads": _heads(queries) or 0, "scale": _scalar(scale) or 0.0}
        layer = next(self._layers)

        def branch(name: str, extra: list[ir.Value | None]) -> ir.Graph:
            node = ir.node("MultiHeadAttention", [q, k, v, *extra], attributes, domain=MICROSOFT)
            node.outputs[0].name = f"attention_{layer}_{name}"
            return ir.Graph([], node.outputs, nodes=[node], name=f"{name}_{layer}")

        unpadded = op.Cast(op.ReduceMin(self._mask, keepdims=0), to=ir.DataType.BOOL)
        key_mask = op.Cast(self._mask, to=ir.DataType.INT32)
        return op.If(
            unpadded,
            then_branch=branch("unpadded", []),
            else_branch=branch("padded", [None, key_mask]),
        )

    def _is_padding(self, bias: ir.Value) -> bool:
        """Whether a bias masks the keys that are padding, and nothing else."""
        if bias.name not in self._tried:
            self._tried[bias.name] = _masks_padding_alone(self._original, str(bias.name))
        return self._tried[bias.name]


def _masks_padding_alone(model: ir.Model, name: str) -> bool:
    part = model.clone()
    found = [v for node in part.graph for v in node.outputs if v.name == name]
    if not found:
        return False
    part.graph.outputs[:] = found
    RemoveUnusedNodesPass()(part)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    return all(_trial(session, rng, batch, length) for batch, length in TRIALS)


def _trial(
    session: ort.InferenceSession, rng: np.random.Generator, batch: int, length: int
) -> bool:
    mask = rng.integers(0, 2, (batch, length))
    mask[:, rng.integers(length)] = 1
    feeds = {i.name: np.zeros((batch, length), np.int64) for i in session.get_inputs()}
    bias: NDArray[np.float32] = session.run(None, feeds | {MASK: mask})[0]
    shape = (batch, 1, length, length)
    if bias.ndim != len(shape) or bias.shape[1] != 1:
        return False
    allowed = np.broadcast_to(mask[:, None, None, :], shape) == 1
    full = np.broadcast_to(bias, shape)
    return bool((full[allowed] == 0).all() and (full[~allowed] < MASKED).all())


def _same_shape(value: ir.Value, other: ir.Value, rank: int) -> bool:
    return value.shape is not None and len(value.shape) == rank and value.shape == other.shape


def _heads(value: ir.Value) -> int | None:
    """Heads of ``[batch, heads, sequence, head size]``."""
    heads = value.shape[1] if value.shape is not None else None
    return heads if isinstance(heads, int) else None


def _scalar(value: ir.Value) -> float | None:
    tensor = ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None
