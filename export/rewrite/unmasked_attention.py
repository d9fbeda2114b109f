"""Attention without a mask as MultiHeadAttention, whose kernel is flash attention.

Before: queries, keys and values split into heads, their product, a bias that is zero for every
input, softmax, the product with the values, and the heads joined again.

After: one ``MultiHeadAttention`` (com.microsoft) a layer.

It applies to models of images, and of sounds that are never padded. Whether a bias is zero is not
read off the graph but tried: the part of the graph that computes it runs on random inputs of
several sizes.

Gain: the same kernel as in `export.rewrite.fused_attention`; what it is worth for images and sounds
alone was not measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import RewriteRuleClassBase, RewriteRuleSet, Var

from export.rewrite.fused_attention import (
    HEADS,
    HEADS_OUTSIDE,
    LAST_TWO_EXCHANGED,
    MICROSOFT,
    TOKENS,
    _heads,
    _same_shape,
    _scalar,
)

# Batch sizes and lengths of any other axis that varies (samples of a sound) on which it is tried.
TRIALS = ((1, 4_000), (3, 7_001))


def fuse_unmasked_attention(model: ir.Model) -> int:
    """Apply the pass in place, behind `simplify_attention`; returns the layers changed."""
    if any(value.dtype != ir.DataType.FLOAT for value in model.graph.inputs):
        return 0  # texts and masks: `fuse_attention` looks after them
    _drop_zero_biases(model)
    _drop_same_reshapes(model)
    count = int(RewriteRuleSet([_Attention.rule()]).apply_to_model(model))
    if count:
        model.opset_imports[MICROSOFT] = 1
    RemoveUnusedNodesPass()(model)
    return count


def _drop_same_reshapes(model: ir.Model) -> None:
    """Take out reshapes to the shape that there is already."""
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.outputs[0].is_graph_output():
            continue
        before, after = node.inputs[0], node.outputs[0]
        if before is None or before.shape is None or None in _known(before.shape):
            continue
        if after.shape is not None and before.shape == after.shape:
            after.replace_all_uses_with(before)


def _known(shape: ir.Shape) -> list[object]:
    """Sizes, with None for those that have neither a number nor a symbol."""
    return [size if isinstance(size, int) else size.value for size in shape]


def _drop_zero_biases(model: ir.Model) -> None:
    """Take out what is added to scores and is zero for every input."""
    tried: dict[ir.Value, bool] = {}
    for node in list(model.graph):
        if node.op_type != "Softmax" or node.inputs[0] is None:
            continue
        add = node.inputs[0].producer()
        if add is None or add.op_type != "Add" or len(add.inputs) != 2:  # noqa: PLR2004
            continue
        scores, bias = add.inputs
        if scores is None or bias is None or _op(scores) != "MatMul" or _op(bias) == "MatMul":
            continue
        if bias not in tried:
            tried[bias] = _is_zero(model, bias)
        if tried[bias]:
            node.replace_input_with(0, scores)


def _op(value: ir.Value) -> str | None:
    producer = value.producer()
    return None if producer is None else producer.op_type


def _is_zero(model: ir.Model, bias: ir.Value) -> bool:
    part = model.clone()
    found = [v for node in part.graph for v in node.outputs if v.name == bias.name]
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
    try:
        return all(not session.run(None, _feeds(session, rng, *trial))[0].any() for trial in TRIALS)
    except Exception:  # sizes that do not fit together: ORT's errors share no other base
        return False


def _feeds(
    session: ort.InferenceSession, rng: np.random.Generator, batch: int, length: int
) -> dict[str, Any]:
    feeds = {}
    for value in session.get_inputs():
        first, *others = value.shape
        sizes = [
            batch if isinstance(first, str) else first,
            *(length if isinstance(size, str) else size for size in others),
        ]
        feeds[value.name] = rng.standard_normal(sizes).astype(np.float32)
    return feeds


class _Attention(RewriteRuleClassBase):  # type: ignore[misc]  # onnxscript has no types
    """One layer's attention, from the projections to the joined heads."""

    def __init__(self) -> None:
        super().__init__(remove_nodes=False)

    def pattern(self, op: Any, q: Any, k: Any, v: Any, scale: Any) -> Any:
        def heads(x: Any, shape: str, name: str) -> Any:
            split = op.Reshape(x, Var(shape), _allow_other_attributes=True)
            return op.Transpose(split, perm=HEADS_OUTSIDE, _outputs=[name])

        queries, keys, values = (
            heads(q, "q_shape", "queries"),
            heads(k, "k_shape", "keys"),
            heads(v, "v_shape", "values"),
        )
        turned = op.Transpose(keys, perm=LAST_TWO_EXCHANGED)
        scores = op.MatMul(op.Mul(queries, scale), turned)
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
        queries: ir.Value,
        keys: ir.Value,
        values: ir.Value,
        joined: ir.Value,
        **__: Any,
    ) -> bool:
        flat = all(_same_shape(x, q, TOKENS) for x in (q, k, v, joined))
        split = all(_same_shape(x, queries, HEADS) for x in (queries, keys, values))
        return flat and split and _heads(queries) is not None and _scalar(scale) is not None

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
        return op.MultiHeadAttention(
            q,
            k,
            v,
            num_heads=_heads(queries) or 0,
            scale=_scalar(scale) or 0.0,
            _domain=MICROSOFT,
        )
