"""What an attention mask means, found out by trying it.

The part of the graph that computes the mask runs on random texts, padded on the right. That says
more than its operators: exporters write the same mask in many ways. A window that only long texts
exceed is a number in that part, so one text is longer than every number there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

MASK = "attention_mask"
# Batch and sequence sizes on which a mask is tried, and what counts as minus infinity there.
TRIALS = ((1, 4), (4, 7), (3, 3))
MASKED = -1e30
# The longest text that is tried, and what is a number and not "to the end" in a slice.
LONGEST = 4096
UNBOUNDED = 1 << 30
# Rank of the scores, [batch, heads, queries, keys].
SCORES = 4


class Masking(Enum):
    """Which keys a query may attend to."""

    NONE = "all keys"
    PADDING = "all keys but padding"
    CAUSAL = "the keys up to its own, but padding"
    OTHER = "something else, or the scores are changed"


def masking_of(model: ir.Model, name: str) -> Masking:
    """What the value called ``name``, which is added to the scores, does to them.

    Args:
        model: a portable graph; stays as it is.
        name: of a float value that broadcasts to ``[batch, heads, queries, keys]``.
    """
    part = model.clone()
    found = [v for node in part.graph for v in node.outputs if v.name == name]
    if not found:
        return Masking.OTHER
    part.graph.outputs[:] = found
    RemoveUnusedNodesPass()(part)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    long = max(_numbers(part), default=0) + 3
    if long > LONGEST:
        return Masking.OTHER
    trials = (*TRIALS, (1, max(long, 4)))
    results = {_trial(session, rng, batch, length) for batch, length in trials}
    return results.pop() if len(results) == 1 else Masking.OTHER


def _numbers(model: ir.Model) -> Iterator[int]:
    """The whole numbers that a graph computes with."""
    constants = [v.const_value for v in model.graph.initializers.values()]
    constants += [ir.convenience.get_const_tensor(v) for n in model.graph for v in n.outputs]
    for tensor in constants:
        if tensor is not None and tensor.size == 1 and tensor.dtype.is_integer():
            number = abs(int(tensor.numpy().reshape(-1)[0]))
            if number < UNBOUNDED:
                yield number


def _trial(
    session: ort.InferenceSession, rng: np.random.Generator, batch: int, length: int
) -> Masking:
    lengths = rng.integers(2, length + 1, batch)
    lengths[0] = length - 1  # in every trial some key is padding
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    feeds = {i.name: _zeros(i, batch, length) for i in session.get_inputs()}
    if MASK in feeds:
        feeds[MASK] = mask
    bias: NDArray[np.float32] = session.run(None, feeds)[0]
    if not bias.any():
        return Masking.NONE
    shape = (batch, 1, length, length)
    if bias.ndim != SCORES or bias.shape[1] != 1 or MASK not in feeds:
        return Masking.OTHER
    full = np.broadcast_to(bias, shape)
    padding = np.broadcast_to(mask[:, None, None, :], shape) == 1
    causal = padding & np.tri(length, dtype=bool)
    for allowed, meaning in ((padding, Masking.PADDING), (causal, Masking.CAUSAL)):
        if (full[allowed] == 0).all() and (full[~allowed] < MASKED).all():
            return meaning
    return Masking.OTHER


def _zeros(value: ort.NodeArg, batch: int, length: int) -> NDArray[np.float32 | np.int64]:
    """An input of zeros: its first free axis is the batch, others are the sequence."""
    sizes = [batch if axis == 0 else length for axis in range(len(value.shape))]
    shape = [n if isinstance(n, int) else size for n, size in zip(value.shape, sizes, strict=True)]
    return np.zeros(shape, np.int64 if value.type == "tensor(int64)" else np.float32)
