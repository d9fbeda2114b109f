"""8-bit weights and activations: fast, and with no scale that depends on batch mates.

Every scale of an activation is either a constant or its row's own (see `recipe`), the products are
exact sums of integers, and weights have one scale per column (see `rounding`).

How good the whole is, is measured on held-out items, never assumed. When it misses the target, a
sensitivity pass quantizes each site alone, and the sites that cost the most cosine for the least
work are left in fp32 (their weights stored in 16 bits) until it is met. A few features of a site
that would make the scale of all others coarse stay in fp32 from the start (see `loud`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.arrays import Floats
from fmrt.errors import ExportError
from fmrt.export.quantize.attention import attend_by_one_path
from fmrt.export.quantize.context import Context, Made, Score
from fmrt.export.quantize.emit import Rounded, Writer, write_site
from fmrt.export.quantize.fp16 import store_weights
from fmrt.export.quantize.loud import spare_loud_features
from fmrt.export.quantize.recipe import Recipe, choose_recipe
from fmrt.export.quantize.residual import move_biases_to_norms
from fmrt.export.quantize.rounding import round_weights
from fmrt.export.quantize.sites import Site, find_sites, within_memory
from fmrt.export.quantize.tables import quantize_tables
from fmrt.export.rewrite.graph.walking import MICROSOFT

# The rounding solves for all features of a site at once, which takes their third power in time.
MOST_FEATURES = 6144
# Texts of more tokens than this keep flash attention, and with it batches of one length: the scores
# of all their queries and keys at once would be large.
MOST_SCORED = 512
Plan = tuple[Recipe, list[Rounded]]


def fused_int8(context: Context) -> Made:
    """For ONNX Runtime on the CPU."""
    return _make(context, fused=True)


def standard_int8(context: Context) -> Made:
    """The variant in operators of ONNX alone."""
    return _make(context, fused=False)


def _make(context: Context, *, fused: bool) -> Made:
    spare_loud_features(context.calibration, context.base)
    sites = find_sites(context.base)
    if not sites:
        raise ExportError("the graph has no matrix products with constant weights to quantize")
    quantizer = _Quantizer(context, sites, fused=fused)
    kept: list[Site] = []
    model = quantizer.graph(kept)
    score = context.score(model)
    order: list[Site] | None = None
    while score.mean < context.target:
        if order is None:
            context.say(f"  {_words(score)}; looking for what to keep in higher precision")
            order = quantizer.by_cost()
        if not order:
            raise ExportError(
                f"int8 reaches a mean cosine of {score.mean:.6f} with no product left to keep, "
                f"below {context.target}; lower --min-cosine, or leave int8 out"
            )
        kept.append(order.pop(0))
        model = quantizer.graph(kept)
        score = context.score(model)
        context.say(f"  {len(kept)} of {len(sites)} in higher precision: {_words(score)}")
    if len(kept) == len(sites):
        raise ExportError(
            f"int8 meets a mean cosine of {context.target} only with every product in higher "
            "precision; lower --min-cosine, or leave int8 out"
        )
    products = sum(len(site.linears) for site in sites)
    return Made(model, sum(len(site.linears) for site in kept), products)


def _words(score: Score) -> str:
    return f"mean cosine {score.mean:.6f}, worst {score.worst:.6f}"


class _Quantizer:
    """Plans every site once, and builds graphs with some of them left as they are."""

    def __init__(self, context: Context, sites: Sequence[Site], *, fused: bool) -> None:
        self._context = context
        self._fused = fused
        self._long = (context.tower.longest_text or 0) > MOST_SCORED
        self._sites = sites
        self._plans: dict[str, Plan] = {}
        groups = within_memory(sites)
        for group in groups:
            rows = context.calibration.rows(context.base, [str(site.x.name) for site in group])
            for site in group:
                name = str(site.x.name)
                self._plans[name] = _plan(site, rows.pop(name))

    def graph(self, kept: Sequence[Site]) -> ir.Model:
        """Quantize all sites but some; tables too."""
        names = {site.x.name for site in kept}
        model = self._only([s for s in self._sites if s.x.name not in names])
        quantize_tables(model, Writer(model, "table"))
        RemoveUnusedNodesPass()(model)
        store_weights(model)
        return model

    def by_cost(self) -> list[Site]:
        """Sites, the one first that loses the most cosine for the work that it saves."""
        losses = {}
        for site in self._sites:
            score = self._context.score(self._only([site]), self._context.sensitivity)
            losses[site.x] = (1 - score.mean) / sum(li.weight.size for li in site.linears)
        return sorted(self._sites, key=lambda site: -losses[site.x])

    def _only(self, sites: Sequence[Site]) -> ir.Model:
        model = self._context.base.clone()
        if self._fused and not self._long:
            attend_by_one_path(model)
        names = {site.x.name for site in sites}
        writer = Writer(model, "int8")
        for site in find_sites(model):
            if site.x.name in names:
                recipe, rounded = self._plans[str(site.x.name)]
                write_site(writer, site, recipe, rounded, fused=self._fused)
        if self._fused:
            model.opset_imports[MICROSOFT] = 1
        RemoveUnusedNodesPass()(model)
        move_biases_to_norms(model)
        return model


def _plan(site: Site, rows: Floats) -> Plan:
    recipe = choose_recipe(site, rows)
    seen = recipe.quantized(rows)
    known = site.features <= MOST_FEATURES and len(rows) >= site.features // 2
    moments = seen.T @ seen if known else None
    return recipe, [
        _rounded(site, i, recipe, rows, seen, moments) for i in range(len(site.linears))
    ]


def _rounded(
    site: Site, index: int, recipe: Recipe, rows: Floats, seen: Floats, moments: Floats | None
) -> Rounded:
    linear = site.linears[index]
    weight, scale = round_weights(linear.weight * recipe.stretch[:, None], moments)
    products = linear.weight, weight * scale
    # What is wrong on average, and what the shift took, goes into the bias.
    missing = rows.mean(axis=0) @ products[0] - seen.mean(axis=0) @ products[1]
    if linear.bias is None and recipe.scale is None and not recipe.shift.any():
        return Rounded(weight, scale, None)
    bias = missing if linear.bias is None else linear.bias + missing
    return Rounded(weight, scale, np.asarray(bias, np.float32))
