"""Floating-point operations of a graph's matrix products, counted as ONNX Runtime runs it.

ONNX Runtime's profile names the shapes that each operator really had, whatever the architecture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.session.creation import session_options
from fmrt.session.host import input_names
from fmrt.session.providers import CPU
from fmrt.system.archive import BundleFile

Shape = Sequence[int]


@dataclass(frozen=True)
class Products:
    """The matrix products of one run.

    Attributes:
        flops: The flops of all of them; a multiplication and an addition are two.
        weights: The rows, inner size and columns of those products with weights that are known
            ahead.
    """

    flops: float
    weights: tuple[tuple[int, int, int], ...]


def count_products(
    path: BundleFile, output: str, feeds: Sequence[Mapping[str, NDArray[Any]]]
) -> list[Products]:
    """Run a graph on the CPU once for each of ``feeds``, and count.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
    """
    events = profile(path, output, feeds)
    runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")
    return [
        _count([e["args"] for e in events if start <= e["ts"] < start + duration and is_node(e)])
        for start, duration in runs
    ]


def profile(
    path: BundleFile, output: str, feeds: Sequence[Mapping[str, NDArray[Any]]]
) -> list[dict[str, Any]]:
    """The events of ONNX Runtime's profile of a graph that runs on one thread of the CPU.

    Args:
        path: The graph.
        output: The output to compute.
        feeds: The inputs of each run.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
    """
    import tempfile  # start-up stays quick

    with tempfile.TemporaryDirectory() as directory:
        options = session_options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(directory) / "profile")
        session = CPU.start(path, options)
        names = input_names(session)
        for one in feeds:
            session.run([output], {name: one[name] for name in names & one.keys()})
        events: list[dict[str, Any]] = json.loads(
            Path(session.end_profiling()).read_text(encoding="utf-8")
        )
    return events


def is_node(event: Mapping[str, Any]) -> bool:
    """Whether an event of a profile is the run of an operator."""
    return event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time")


def _count(nodes: Sequence[Mapping[str, Any]]) -> Products:
    total, weights = 0.0, []
    for node in nodes:
        rule = _RULES.get(node["op_name"])
        if rule is None:
            continue
        inputs, outputs = _shapes(node["input_type_shape"]), _shapes(node["output_type_shape"])
        if not inputs or not outputs or not inputs[0] or not outputs[0]:
            continue
        total += rule(inputs, outputs[0])
        packed = len(inputs) < _OPERANDS + (node["op_name"] == "Gemm")
        if node["op_name"] in _INTEGER or (node["op_name"] in _LINEAR and packed):
            out = outputs[0]
            weights.append((math.prod(out[:-1]), inputs[0][-1], out[-1]))
    return Products(total, tuple(weights))


def _shapes(values: Sequence[Mapping[str, Shape]]) -> list[Shape]:
    return [shape for value in values for shape in value.values()]


def _product(inputs: Sequence[Shape], out: Shape) -> float:
    """``[..., m, k] @ [k, n]``; the weights are not among the inputs when packed ahead."""
    return 2.0 * math.prod(out) * inputs[0][-1]


def _attention(inputs: Sequence[Shape], out: Shape) -> float:
    """Two products of ``[batch, queries, hidden]`` with as many keys, and values."""
    keys = inputs[1][-2] if len(inputs) > 1 else inputs[0][1]
    return 4.0 * math.prod(out) * keys


def _convolution(inputs: Sequence[Shape], out: Shape) -> float:
    """Every element of the output is a product over ``[channels, kernel...]`` of the weights."""
    return 2.0 * math.prod(out) * (math.prod(inputs[1][1:]) if len(inputs) > 1 else inputs[0][1])


# Products of quantized graphs, all with weights: attention stays in float.
_INTEGER = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_RULES: Mapping[str, Callable[[Sequence[Shape], Shape], float]] = {
    **dict.fromkeys(
        (
            "Gemm",
            "FusedGemm",
            "MatMul",
            "FusedMatMul",
            *_INTEGER,
            "MatMulNBits",
        ),
        _product,
    ),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "Attention"), _attention),
    **dict.fromkeys(("Conv", "FusedConv"), _convolution),
}
_LINEAR = ("Gemm", "MatMul")
# A product whose second operand was packed ahead shows the first alone (and Gemm its bias).
_OPERANDS = 2


def fit(lengths: Sequence[int], flops: Sequence[float]) -> NDArray[np.float64]:
    """Polynomial of degree 2 at most, as `numpy.polyfit` gives it: FLOPs of an item by its length.

    Dense layers grow with the length, attention with its square; so three lengths are exact.
    """
    degree = min(2, len(set(lengths)) - 1)
    return np.atleast_1d(np.polyfit(np.asarray(lengths, float), np.asarray(flops), degree))
