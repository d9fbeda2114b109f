"""What an attention mask means, found out by trying it.

The part of the graph that computes the mask runs on random texts. That says more than its
operators: exporters write the same mask in many ways. A window that only long texts exceed is a
number in that part, so one text is longer than every number there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

MASK = "attention_mask"
# Batch and sequence sizes on which a mask is tried, for sounds of as many samples, and what counts
# as minus infinity there.
TRIALS = ((1, 4), (4, 7), (3, 3))
SOUNDS = ((1, 4_000), (3, 7_001))
MASKED = -1e30
# The longest text that is tried, and what is a number and not "to the end" in a slice.
LONGEST = 4_200
UNBOUNDED = 1 << 30
PRODUCTS = frozenset({"Conv", "Einsum", "Gemm", "MatMul"})
# Rank of the scores, [batch, heads, queries, keys].
SCORES = 4


@dataclass(frozen=True)
class Masking:
    """Which keys a query may attend to.

    Attributes:
        padding: Whether keys that are padding are hidden.
        before, after: How many positions before its own and after it; None for all.
    """

    padding: bool
    before: int | None = None
    after: int | None = None

    def allowed(self, mask: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of ``[batch, 1, queries, keys]`` may be, for a mask ``[batch, sequence]``."""
        batch, length = mask.shape
        apart = np.arange(length)[None, :] - np.arange(length)[:, None]
        near = np.ones((batch, 1, length, length), bool)
        near &= apart >= (-length if self.before is None else -self.before)
        near &= apart <= (length if self.after is None else self.after)
        return near & (mask[:, None, None, :] == 1) if self.padding else near

    def __and__(self, other: Masking) -> Masking:
        """What two masks leave together."""

        def nearer(a: int | None, b: int | None) -> int | None:
            return a if b is None else b if a is None else min(a, b)

        return Masking(
            self.padding or other.padding,
            nearer(self.before, other.before),
            nearer(self.after, other.after),
        )


NONE = Masking(padding=False)
PADDING = Masking(padding=True)
CAUSAL = Masking(padding=True, after=0)


class Maskings:
    """The masks of a graph, each tried once.

    Args:
        model: The model, as it was traced; what a pass changes later does not show here.
    """

    def __init__(self, model: ir.Model) -> None:
        self._original = model.clone()
        self._tried: dict[str, Masking | None] = {}

    def of(self, biases: Sequence[ir.Value]) -> Masking | None:
        """What biases do to the scores together; None when that is more than masking."""
        found = [self._of(str(bias.name)) for bias in biases]
        known = [masking for masking in found if masking is not None]
        return functools.reduce(Masking.__and__, known, NONE) if len(known) == len(found) else None

    def _of(self, name: str) -> Masking | None:
        if name not in self._tried:
            self._tried[name] = masking_of(self._original, name)
        return self._tried[name]


def masking_of(model: ir.Model, name: str) -> Masking | None:
    """What the value called ``name``, which is added to the scores, does to them.

    Args:
        model: A portable graph; stays as it is.
        name: The name of a float value that broadcasts to ``[batch, heads, queries, keys]``.

    Returns:
        None when it does more than hide keys, or hides others than a `Masking` can say.
    """
    part = model.clone()
    found = [v for node in part.graph for v in node.outputs if v.name == name]
    if any(map(_from_products, found)):
        return None
    long = max(4, 3 + max(_numbers(part, found), default=0))
    if not found or long > LONGEST:
        return None
    session = _session(part)
    rng = np.random.default_rng(0)
    sounds = any(i.type == "tensor(float)" for i in session.get_inputs())
    trials = SOUNDS if sounds else (*TRIALS, (1, long))
    try:
        results = [_trial(session, rng, *trial) for trial in trials]
    except Exception:  # sizes that do not fit together: ORT's errors share no other base
        return None
    if not any(bias.any() for _, bias in results):
        return NONE
    candidates = _candidates(*results[-1])
    return next((c for c in candidates if all(_hides(c, *result) for result in results)), None)


def _from_products(value: ir.Value) -> bool:
    """Whether a value is computed from the content of a matrix product, not only from its shape.

    Then it is more than a mask, and to try it would be to run layers on the longest text.
    """
    seen: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node.op_type == "Shape":
            continue
        if node.op_type in PRODUCTS:
            return True
        seen.add(node)
        waiting += [i.producer() for i in node.inputs if i is not None]
    return False


def _session(part: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(
        ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _numbers(part: ir.Model, outputs: Sequence[ir.Value]) -> Iterator[int]:
    """Cut the part after the outputs off; the whole numbers that it computes with."""
    part.graph.outputs[:] = outputs
    RemoveUnusedNodesPass()(part)
    constants = [v.const_value for v in part.graph.initializers.values()]
    constants += [ir.convenience.get_const_tensor(v) for n in part.graph for v in n.outputs]
    for tensor in constants:
        if tensor is not None and tensor.size == 1 and tensor.dtype.is_integer():
            number = abs(int(tensor.numpy().reshape(-1)[0]))
            if number < UNBOUNDED:
                yield number


def _trial(
    session: ort.InferenceSession, rng: np.random.Generator, batch: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A mask with padding on the right, on the left or between, and the bias it gives."""
    mask = rng.integers(0, 2, (batch, length))
    mask[0] = 1
    mask[0, rng.integers(length)] = 0  # in every trial some key is padding
    mask[-1] = np.arange(length) < length - 1
    feeds = {i.name: _filled(i, rng, batch, length) for i in session.get_inputs()}
    if MASK in feeds:
        feeds[MASK] = mask
    return mask, session.run(None, feeds)[0]


def _candidates(mask: NDArray[np.int64], bias: NDArray[np.float32]) -> Iterator[Masking]:
    """What a bias over one text may mean: as far as it lets a query see, padding hidden or not."""
    if bias.ndim != SCORES or bias.shape[-1] != mask.shape[1]:
        return
    length = mask.shape[1]
    queries, keys = np.nonzero(np.broadcast_to(bias[0, 0], (length, length)) == 0)
    apart = keys - queries
    before, after = int(-apart.min(initial=0)), int(apart.max(initial=0))
    last = int(np.flatnonzero(mask[0])[-1])
    for padding, end in ((True, last), (False, length - 1)):
        yield Masking(padding, before if before < end else None, after if after < end else None)


def _hides(masking: Masking, mask: NDArray[np.int64], bias: NDArray[np.float32]) -> bool:
    """Whether a bias is what a masking says, to every query that is not padding itself."""
    batch, length = mask.shape
    whole = (batch, 1, length, length)
    if bias.ndim != SCORES or any(a not in (1, b) for a, b in zip(bias.shape, whole, strict=True)):
        return False
    allowed = masking.allowed(mask)
    queries = np.broadcast_to(mask[:, None, :, None] == 1, whole)
    full = np.broadcast_to(bias, whole)
    return bool((full[allowed & queries] == 0).all() and (full[~allowed & queries] < MASKED).all())


def _filled(value: ort.NodeArg, rng: np.random.Generator, batch: int, length: int) -> NDArray[Any]:
    """An input: its first free axis is the batch, others the sequence; zeros, or random floats."""
    sizes = [batch if axis == 0 else length for axis in range(len(value.shape))]
    shape = [n if isinstance(n, int) else size for n, size in zip(value.shape, sizes, strict=True)]
    if value.type == "tensor(int64)":
        return np.zeros(shape, np.int64)
    return rng.standard_normal(shape).astype(np.float32)
