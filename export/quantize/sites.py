"""Finds what can be quantized: the tensors that matrix products with constant weights read.

A `Site` is one such tensor with all products that read it (the queries', keys' and values'
projections share one), so that it is quantized once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fmrt.export.quantize.probe import BYTES, ROWS
from fmrt.export.rewrite.graph.walking import constant, present

MATRIX = 2
# Bytes of calibration rows that are held at once.
MEMORY = 1 << 30
# Smaller products gain nothing from 8 bits, and lose the most.
FEWEST_FEATURES = 16
# Operators that keep the last axis and what is on it.
SHAPING = frozenset({"Reshape", "Identity"})
# What no result of an operator is below. GELU's smallest value is -0.16998.
FLOORS = {"Gelu": -0.17, "Relu": 0.0, "Sigmoid": 0.0}


@dataclass(frozen=True)
class Linear:
    """A matrix product ``[.., K] @ [K, N]`` with a constant second factor, and its bias.

    Attributes:
        node: The ``MatMul`` or ``Gemm``.
        weight: The weight, float32 ``[K, N]``.
        bias: The bias, float32 ``[N]``, or None.
        source: The constant in the graph; several products may share it.
        output: The result ``[.., N]``, with the bias added.
    """

    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    source: ir.Value
    output: ir.Value

    @property
    def name(self) -> str:
        """The name of its weights, for people."""
        return self.source.name or self.node.name or "?"


@dataclass(frozen=True)
class Site:
    """A tensor ``[.., K]`` and the products that read it.

    Attributes:
        x: The tensor.
        linears: The products.
        norm: The layer normalization that makes it, when its scale and bias are constants.
        floor: The value that no value of it is below, where its operator says so.
    """

    x: ir.Value
    linears: tuple[Linear, ...]
    norm: ir.Node | None
    floor: float | None

    @property
    def features(self) -> int:
        """Size of the last axis, K."""
        return int(self.linears[0].weight.shape[0])

    @property
    def flat(self) -> bool:
        """Whether the tensor is a matrix, as a ``Gemm`` says."""
        return any(linear.node.op_type == "Gemm" for linear in self.linears)


def find_sites(model: ir.Model) -> list[Site]:
    """Sites in the order of the graph, large enough to gain from quantization."""
    groups: dict[ir.Value, list[Linear]] = {}
    for node in model.graph:
        linear = _linear(node)
        if linear is not None and min(linear.weight.shape) >= FEWEST_FEATURES:
            groups.setdefault(present(node.inputs[0]), []).append(linear)
    return [Site(x, tuple(linears), _norm(x), _floor(x)) for x, linears in groups.items()]


def within_memory(sites: Sequence[Site]) -> list[list[Site]]:
    """Sites in groups whose calibration rows fit into `MEMORY` together."""
    groups: list[list[Site]] = [[]]
    held = 0
    for site in sites:
        size = min(BYTES, ROWS * 4 * site.features)
        if held + size > MEMORY and groups[-1]:
            groups.append([])
            held = 0
        groups[-1].append(site)
        held += size
    return groups


def _linear(node: ir.Node) -> Linear | None:
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm"):
        return None
    x, source = node.inputs[:2]
    if source is None or x is None or constant(x) is not None:
        return None
    weight = constant(source)
    if weight is None or weight.ndim != MATRIX or weight.dtype != np.float32:
        return None
    if node.op_type == "MatMul":
        return Linear(node, weight, *_added(node, weight.shape[1], source))
    return _gemm(node, weight, source)


def _gemm(node: ir.Node, weight: NDArray[np.float32], source: ir.Value) -> Linear | None:
    attributes = node.attributes
    plain = all(attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if not plain or bool(attributes.get_int("transA", 0)):
        return None
    if attributes.get_int("transB", 0):
        weight = np.ascontiguousarray(weight.T)
    added = node.inputs[2] if len(node.inputs) > MATRIX else None
    bias = constant(added)
    if added is not None and (bias is None or bias.shape != (weight.shape[1],)):
        return None
    return Linear(node, weight, bias, source, node.outputs[0])


def _added(
    node: ir.Node, width: int, source: ir.Value
) -> tuple[NDArray[np.float32] | None, ir.Value, ir.Value]:
    """The constant vector that alone is added to a product, and where the sum is."""
    product = node.outputs[0]
    uses = list(product.uses())
    if len(uses) == 1 and not product.is_graph_output():
        add = uses[0].node
        if add.domain == "" and add.op_type == "Add":
            bias = constant(add.inputs[1 - uses[0].idx])
            if bias is not None and bias.shape == (width,):
                return bias, source, add.outputs[0]
    return None, source, product


def _norm(x: ir.Value) -> ir.Node | None:
    """The layer normalization after which only shapes change."""
    for node in _producers(x):
        if node.op_type == "LayerNormalization" and node.domain == "":
            parameters = [constant(value) for value in node.inputs[1:3]]
            return node if parameters and all(p is not None for p in parameters) else None
        if node.op_type not in SHAPING:
            return None
    return None


def _floor(x: ir.Value) -> float | None:
    """The floor of the operator after which only shapes change."""
    for node in _producers(x):
        if node.op_type not in SHAPING:
            return FLOORS.get(node.op_type) if node.domain == "" else None
    return None


def _producers(value: ir.Value) -> Iterator[ir.Node]:
    found = value.producer()
    while found is not None:
        yield found
        first = found.inputs[0] if found.inputs else None
        found = first.producer() if first is not None else None
