"""The few features of a GELU that are much larger than the rest, kept in float32 beside them.

A row's scale reaches up to its largest value. In some layers that is nearly always one of the same
few of the GELU's features, and all others are rounded as coarsely as these need.

Before: ``y = Gelu(x W + b) V + c``. After, with W, b and V split into loud features and quiet ones:
``y = (Gelu(x W_quiet + b_quiet) V_quiet + c) + Gelu(x W_loud + b_loud) V_loud``. The quiet part
keeps its shape, with zeros where the loud features were, so its product can be quantized as before.
The loud part is a product with `COUNT` columns and another with as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.arrays import Floats
from fmrt.export.quantize.emit import Writer
from fmrt.export.quantize.probe import Probe
from fmrt.export.quantize.recipe import RATED, choose_recipe
from fmrt.export.quantize.sites import Linear, Site, find_sites, within_memory
from fmrt.export.rewrite.graph.walking import present

# Loud features of a GELU: fewer than `sites.FEWEST_FEATURES`, so that they stay in float32.
COUNT = 8
# A GELU of fewer features gains nothing: its two small products take too large a part of the time.
FEWEST = 256
# What of the error must be left at most for the change to be worth its two small products.
WORTH = 0.7
# How far up in each feature's values loudness is measured.
QUANTILE = 0.999


def spare_loud_features(probe: Probe, model: ir.Model) -> int:
    """Apply in place where it lowers a site's error enough; returns the number of sites.

    Args:
        probe: The calibration items.
        model: A graph in float32.
    """
    pairs = {str(second.x.name): (first, second) for first, second in _pairs(find_sites(model))}
    if not pairs:
        return 0
    writer = Writer(model, "loud")
    spared: dict[str, list[int] | None] = {}
    for group in within_memory([second for _, second in pairs.values()]):
        rows = probe.rows(model, [str(site.x.name) for site in group])
        spared |= {name: _loud(pairs[name][1], some[:RATED]) for name, some in rows.items()}
    changes = [(*pairs[name], loud) for name, loud in spared.items() if loud is not None]
    for first, second, loud in changes:
        _split(writer, first, second, loud)
    RemoveUnusedNodesPass()(model)
    return len(changes)


def _pairs(sites: Sequence[Site]) -> list[tuple[Linear, Site]]:
    """Products whose results a GELU alone reads, and the sites of that GELU's results."""
    made = {linear.output: linear for site in sites for linear in site.linears}
    found = []
    for site in sites:
        gelu = site.x.producer()
        if gelu is None or gelu.op_type != "Gelu" or gelu.domain != "":
            continue
        if len(site.linears) > 1 or site.features < FEWEST:
            continue
        first = made.get(present(gelu.inputs[0]))
        alone = first is not None and len(list(first.output.uses())) == 1
        if first is not None and alone and first.bias is not None:
            found.append((first, site))
    return found


def _loud(site: Site, rows: Floats) -> list[int] | None:
    """The loud features, or None where sparing them gains little."""
    order = np.argsort(-np.quantile(rows, QUANTILE, axis=0))
    loud = sorted(int(k) for k in order[:COUNT])
    quiet = rows.copy()
    quiet[:, loud] = 0
    return loud if _error(site, quiet) <= WORTH * _error(site, rows) else None


def _error(site: Site, rows: Floats) -> float:
    """Squared error of the products by the rounding of the rows alone."""
    error = choose_recipe(site, rows).quantized(rows) - rows
    return float(np.square(error @ site.linears[0].weight).sum())


def _split(writer: Writer, first: Linear, second: Site, loud: Sequence[int]) -> None:
    (last,) = second.linears
    bias = present(first.bias)
    in_quiet = np.ones(len(bias), np.float32)
    in_quiet[loud] = 0
    quiet = _hidden(writer, first, second, first.weight * in_quiet, bias * in_quiet)
    y = _product(writer, last, quiet, last.weight * in_quiet[:, None], _bias(writer, last))
    some = _hidden(writer, first, second, first.weight[:, loud], bias[loud])
    whole = _product(writer, last, some, last.weight[loud], y)
    whole.type, whole.shape = last.output.type, last.output.shape
    last.output.replace_all_uses_with(whole, replace_graph_outputs=True)


def _hidden(writer: Writer, first: Linear, second: Site, weight: Floats, bias: Floats) -> ir.Value:
    """The GELU of a product of the first one's input."""
    gelu = present(second.x.producer())
    h = _product(writer, first, present(first.node.inputs[0]), weight, writer.constant(bias))
    attributes = {name: attribute.value for name, attribute in gelu.attributes.items()}
    return writer.add(first.node, "Gelu", [h], attributes)


def _product(
    writer: Writer, like: Linear, x: ir.Value, weight: Floats, added: ir.Value | None
) -> ir.Value:
    """``x @ weight + added``, in the operators that another product has."""
    inputs = [x, writer.constant(np.ascontiguousarray(weight))]
    if like.node.op_type == "Gemm":
        return writer.add(like.node, "Gemm", inputs if added is None else [*inputs, added])
    y = writer.add(like.node, "MatMul", inputs)
    return y if added is None else writer.add(like.node, "Add", [y, added])


def _bias(writer: Writer, linear: Linear) -> ir.Value | None:
    return None if linear.bias is None else writer.constant(linear.bias)
