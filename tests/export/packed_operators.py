"""Operators of com.microsoft that a packed graph has, in numpy, after their specification.

Of three of them ONNX Runtime has kernels for CUDA alone. What those refuse is refused here.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[np.generic]
FLOATS = (np.float32, np.float16)


class RemovePadding(OpRun):
    """``[batch, sequence, hidden]`` to ``[tokens, hidden]``, with where the tokens were."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, counts: Array) -> tuple[Array, ...]:
        batch, length, hidden = x.shape
        assert x.dtype in FLOATS
        assert counts.dtype == np.int32
        assert counts.shape == (batch,)
        assert (counts > 0).all(), "kernels may not take texts without tokens"
        real = (np.arange(length) < counts[:, None]).reshape(-1)
        offsets = np.concatenate([np.flatnonzero(real), np.flatnonzero(~real)])
        starts = np.concatenate([[0], np.cumsum(counts)])
        return (
            x.reshape(-1, hidden)[real],
            offsets.astype(np.int32).reshape(batch, length),
            starts.astype(np.int32),
            np.array([counts.max()], np.int32),
        )


class RestorePadding(OpRun):
    """``[tokens, hidden]`` back to ``[batch, sequence, hidden]``, with zeros for padding."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, offsets: Array) -> tuple[Array]:
        tokens, hidden = x.shape
        assert x.dtype in FLOATS
        assert offsets.dtype == np.int32
        batch, length = offsets.shape
        out = np.zeros((batch * length, hidden), x.dtype)
        out[offsets.reshape(-1)[:tokens]] = x
        return (out.reshape(batch, length, hidden),)


class PackedMultiHeadAttention(OpRun):
    """Attention of each text's tokens to one another."""

    op_domain = "com.microsoft"

    def _run(
        self,
        q: Array,
        k: Array,
        v: Array,
        bias: Array | None,
        offsets: Array,
        starts: Array,
        *,
        num_heads: int,
        scale: float,
    ) -> tuple[Array]:
        tokens, hidden = q.shape
        assert q.shape == k.shape == v.shape
        assert bias is None
        assert q.dtype in FLOATS
        assert offsets.dtype == starts.dtype == np.int32
        assert starts.shape == (len(offsets) + 1,)
        assert starts[-1] == tokens
        out = np.empty_like(v)
        for begin, end in itertools.pairwise(starts):
            parts = (x[begin:end].astype(np.float64) for x in (q, k, v))
            query, key, value = (x.reshape(end - begin, num_heads, -1) for x in parts)
            scores = np.einsum("qhs,khs->hqk", query, key) * scale
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out[begin:end] = np.einsum("hqk,khs->qhs", weights, value).reshape(-1, hidden)
        return (out,)


class SkipLayerNormalization(OpRun):
    """The norm of a sum with a residual and a bias."""

    op_domain = "com.microsoft"

    def _run(
        self, x: Array, skip: Array, gamma: Array, beta: Array, bias: Array, *, epsilon: float
    ) -> tuple[Array]:
        assert x.shape == skip.shape
        assert gamma.shape == beta.shape == bias.shape == x.shape[-1:]
        total = x.astype(np.float32) + skip + bias
        apart = total - total.mean(-1, keepdims=True)
        norm = apart / np.sqrt((apart**2).mean(-1, keepdims=True) + epsilon)
        return ((norm * gamma + beta).astype(x.dtype),)


class BiasGelu(OpRun):
    """Gelu of a sum with a bias."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, bias: Array) -> tuple[Array]:
        assert bias.shape == x.shape[-1:]
        total = (x + bias).astype(np.float64)
        erf = np.vectorize(math.erf)(total / math.sqrt(2))
        return ((total * 0.5 * (1 + erf)).astype(x.dtype),)


class GatherElements(OpRun):
    """The standard's; the evaluator's own takes no more than 64 positions."""

    op_domain = ""

    def _run(self, x: Array, indices: Array, *, axis: int) -> tuple[Array]:
        sizes = [
            a if i != axis else n
            for i, (a, n) in enumerate(zip(indices.shape, x.shape, strict=True))
        ]
        return (np.take_along_axis(np.broadcast_to(x, sizes), indices, axis),)


OPERATORS = [
    GatherElements,
    RemovePadding,
    RestorePadding,
    PackedMultiHeadAttention,
    SkipLayerNormalization,
    BiasGelu,
]
