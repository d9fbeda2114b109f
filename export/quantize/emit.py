"""Writes the 8-bit form of a site's products into the graph.

Two dialects: ``fused`` with ONNX Runtime's ``MatMulIntegerToFloat``, and ``standard`` with
operators of ONNX alone, which any consumer runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fmrt.export.quantize.recipe import STEPS, TINY, Recipe
from fmrt.export.quantize.sites import Linear, Site
from fmrt.export.rewrite.graph.walking import MICROSOFT, constant, present


@dataclass(frozen=True)
class Rounded:
    """A product's weights in 8 bits.

    Attributes:
        weight: The weight, int8 ``[K, N]``.
        scale: The scale of each column, float32 ``[N]``.
        bias: The bias to add, float32 ``[N]``, or None.
    """

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None


class Writer:
    """Adds nodes and constants to a graph before a given node."""

    def __init__(self, model: ir.Model, prefix: str) -> None:
        self._graph = model.graph
        self._prefix = prefix
        self._count = 0
        self._shared: dict[tuple[object, ...], ir.Value] = {}

    def constant(self, array: NDArray[np.generic], like: object = None) -> ir.Value:
        """An initializer; one for all calls with the same small value, or the same ``like``."""
        key = (like,) if like is not None else (array.dtype.str, array.shape, array.tobytes())
        if like is None and array.size > 1:
            return self._initializer(array)
        if key not in self._shared:
            self._shared[key] = self._initializer(array)
        return self._shared[key]

    def add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, int | float] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node with one output."""
        node = ir.node(op_type, inputs, attributes or {}, domain=domain)
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def _initializer(self, array: NDArray[np.generic]) -> ir.Value:
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self._graph.initializers[name] = value
        return value


def scalar(value: float, dtype: type = np.float32) -> NDArray[np.generic]:
    """A constant without axes."""
    return np.array(value, dtype)


def write_site(
    writer: Writer, site: Site, recipe: Recipe, rounded: Sequence[Rounded], *, fused: bool
) -> None:
    """Replace a site's products by 8-bit ones."""
    first = site.linears[0].node
    x = _smoothed(writer, site, recipe) if site.norm is not None else site.x
    zero = writer.constant(scalar(recipe.zero, np.uint8))
    if recipe.scale is not None:
        scale = None
        whole = writer.constant(scalar(recipe.scale))
        q = writer.add(first, "QuantizeLinear", [x, whole, zero])
    else:
        q, scale = _by_row(writer, first, x, recipe, flat=site.flat and fused)
    for linear, weights in zip(site.linears, rounded, strict=True):
        product = _fused if fused else _standard
        y = product(writer, linear, q, zero, weights, scale, recipe.scale)
        linear.output.replace_all_uses_with(y, replace_graph_outputs=True)
        y.type, y.shape = linear.output.type, linear.output.shape


def _smoothed(writer: Writer, site: Site, recipe: Recipe) -> ir.Value:
    """The layer normalization once more, with shift and stretch in its scale and bias.

    Its own result goes on to the residual sum; where there is none, it falls away.
    """
    norm = present(site.norm)
    first_constant, *bias = (constant(value) for value in norm.inputs[1:3])
    gamma = present(first_constant)
    beta = bias[0] if bias and bias[0] is not None else np.zeros_like(gamma)
    attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
    first = site.linears[0].node
    inputs = [
        norm.inputs[0],
        writer.constant((gamma / recipe.stretch).astype(np.float32)),
        writer.constant(((beta - recipe.shift) / recipe.stretch).astype(np.float32)),
    ]
    out = writer.add(first, "LayerNormalization", inputs, attributes)
    if norm.outputs[0] is site.x:
        return out
    shape = writer.constant(np.array([-1, site.features], np.int64), like=("rows", site.features))
    return writer.add(first, "Reshape", [out, shape])


def _by_row(
    writer: Writer, before: ir.Node, x: ir.Value, recipe: Recipe, *, flat: bool
) -> tuple[ir.Value, ir.Value]:
    """8-bit rows, and the scale of each ``[.., 1]``."""
    zero = recipe.zero
    last = writer.constant(np.array([-1], np.int64), like="last")
    high = writer.add(before, "ReduceMax", [x, last], {"keepdims": 1})
    high = writer.add(before, "Mul", [high, writer.constant(scalar(1 / (STEPS - zero)))])
    if recipe.floor is None:
        low = writer.add(before, "ReduceMin", [x, last], {"keepdims": 1})
        low = writer.add(before, "Mul", [low, writer.constant(scalar(-1 / zero))])
        parts = [high, low, writer.constant(scalar(TINY))]
    else:
        parts = [high, writer.constant(scalar(max(-recipe.floor / zero, TINY)))]
    scale = writer.add(before, "Max", parts)
    if flat:
        rows = writer.constant(np.array([-1], np.int64), like="last")
        vector = writer.add(before, "Reshape", [scale, rows])
        zeros = writer.constant(np.array([zero], np.uint8), like=("zeros", zero))
        zeros = writer.add(before, "Expand", [zeros, writer.add(before, "Shape", [vector])])
        return writer.add(before, "QuantizeLinear", [x, vector, zeros], {"axis": 0}), scale
    unit = writer.add(before, "Div", [x, scale])
    one, middle = writer.constant(scalar(1.0)), writer.constant(scalar(zero, np.uint8))
    return writer.add(before, "QuantizeLinear", [unit, one, middle]), scale


def _fused(
    writer: Writer,
    linear: Linear,
    q: ir.Value,
    zero: ir.Value,
    rounded: Rounded,
    scale: ir.Value | None,
    whole: float | None,
) -> ir.Value:
    bias = None
    if scale is None and rounded.bias is not None:
        bias = writer.constant(rounded.bias)
    inputs = [
        q,
        writer.constant(rounded.weight, like=(linear.source, "weight")),
        writer.constant(scalar(1.0 if whole is None else whole)),
        writer.constant(rounded.scale),
        zero,
        None,
        bias,
    ]
    y = writer.add(linear.node, "MatMulIntegerToFloat", inputs, domain=MICROSOFT)
    return y if scale is None else _scaled(writer, linear, y, scale, rounded.bias)


def _standard(
    writer: Writer,
    linear: Linear,
    q: ir.Value,
    zero: ir.Value,
    rounded: Rounded,
    scale: ir.Value | None,
    whole: float | None,
) -> ir.Value:
    weight = writer.constant(rounded.weight, like=(linear.source, "weight"))
    sums = writer.add(linear.node, "MatMulInteger", [q, weight, zero])
    y = writer.add(linear.node, "Cast", [sums], {"to": int(ir.DataType.FLOAT)})
    factor = writer.constant(rounded.scale * np.float32(1.0 if whole is None else whole))
    if scale is None:
        return _scaled(writer, linear, y, factor, rounded.bias)
    y = writer.add(linear.node, "Mul", [y, factor])
    return _scaled(writer, linear, y, scale, rounded.bias)


def _scaled(
    writer: Writer, linear: Linear, y: ir.Value, scale: ir.Value, bias: NDArray[np.float32] | None
) -> ir.Value:
    y = writer.add(linear.node, "Mul", [y, scale])
    return y if bias is None else writer.add(linear.node, "Add", [y, writer.constant(bias)])
