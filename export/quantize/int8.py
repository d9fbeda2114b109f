"""8-bit weights and activations: fast, and with no scale that depends on batch mates.

Every scale of an activation is either a constant or its row's own (see `recipe`), the products are
exact sums of integers, and weights have one scale per column (see `rounding`).

How good the whole is, is measured on held-out items, never assumed. A sensitivity pass quantizes
each product alone. The few that lose far more cosine than their part of the work are left in fp32
(their weights stored in 16 bits). When the target is missed, so are others, those first that cost
the most cosine for the least work, until it is met. A few features of a site that would make the
scale of all others coarse stay in fp32 from the start (see `loud`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass

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
# A product stays in float32 where it loses this many times as much cosine as its part of the work,
# for all such products at most this part of the work.
WORTH, MOST_WORK = 2.5, 0.04
# Tables that are smaller than this part of the largest one, such as positions beside words, stay:
# they are few of the bytes, and their rounding was a third of what all tables lost.
SMALL_TABLE = 0.05
# Whoever asks for a lower cosine than this wants speed.
FINE = 0.999
Plan = tuple[Recipe, list[Rounded]]
# A product, by the name of its site's tensor and its position there.
Product = tuple[str, int]


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
    order = quantizer.by_cost() if context.target >= FINE else None
    kept = sensitive(order or [])
    model = quantizer.graph(kept)
    score = context.score(model)
    while score.mean < context.target:
        if order is None:
            context.say(f"  {_words(score)}")
            order = quantizer.by_cost()
        left = [loss.product for loss in order if loss.product not in kept]
        if not left:
            raise ExportError(
                f"int8 reaches a mean cosine of {score.mean:.6f} with no product left to keep, "
                f"below {context.target}; lower --min-cosine, or leave int8 out"
            )
        kept.append(left[0])
        model = quantizer.graph(kept)
        score = context.score(model)
        context.say(f"  {len(kept)} of {len(quantizer.work)} in higher precision: {_words(score)}")
    if len(kept) == len(quantizer.work):
        raise ExportError(
            f"int8 meets a mean cosine of {context.target} only with every product in higher "
            "precision; lower --min-cosine, or leave int8 out"
        )
    return Made(model, len(kept), len(quantizer.work))


def _words(score: Score) -> str:
    return f"mean cosine {score.mean:.6f}, worst {score.worst:.6f}"


@dataclass(frozen=True)
class Loss:
    """What a product costs when it alone is quantized.

    Attributes:
        product: The product.
        cosine: What is missing to a mean cosine of 1.
        work: Its weights, whose number is in proportion to its time.
    """

    product: Product
    cosine: float
    work: int

    @property
    def rate(self) -> float:
        """Cosine that is lost for the work that is saved."""
        return self.cosine / self.work


def sensitive(losses: Sequence[Loss]) -> list[Product]:
    """The few products that lose far more than their part of the work, of losses by their rate."""
    whole = sum(loss.work for loss in losses)
    usual = sum(loss.cosine for loss in losses) / max(whole, 1)
    kept: list[Product] = []
    left = MOST_WORK * whole
    for loss in losses:
        if loss.work <= left and loss.rate > WORTH * usual:
            kept.append(loss.product)
            left -= loss.work
    return kept


class _Quantizer:
    """Plans every site once, and builds graphs with some products left as they are.

    Attributes:
        work: The weights of each product, whose number is in proportion to its time.
    """

    def __init__(self, context: Context, sites: Sequence[Site], *, fused: bool) -> None:
        self._context = context
        self._fused = fused
        self._long = (context.tower.longest_text or 0) > MOST_SCORED
        self._sites = sites
        self.work: dict[Product, int] = {
            (str(site.x.name), i): linear.weight.size
            for site in sites
            for i, linear in enumerate(site.linears)
        }
        self._plans: dict[str, Plan] = {}
        groups = within_memory(sites)
        for group in groups:
            rows = context.calibration.rows(context.base, [str(site.x.name) for site in group])
            for site in group:
                name = str(site.x.name)
                self._plans[name] = _plan(site, rows.pop(name))

    def graph(self, kept: Sequence[Product]) -> ir.Model:
        """Quantize all products but some; tables too."""
        model = self._only(self.work.keys() - set(kept))
        quantize_tables(model, Writer(model, "table"), SMALL_TABLE)
        RemoveUnusedNodesPass()(model)
        store_weights(model)
        return model

    def by_cost(self) -> list[Loss]:
        """All products, the one first that loses the most cosine for the work that it saves."""
        self._context.say("  measuring what each product loses")
        losses = []
        for product, work in self.work.items():
            score = self._context.score(self._only({product}), self._context.sensitivity)
            losses.append(Loss(product, 1 - score.mean, work))
        return sorted(losses, key=lambda loss: -loss.rate)

    def _only(self, products: Set[Product]) -> ir.Model:
        model = self._context.base.clone()
        if self._fused and not self._long:
            attend_by_one_path(model)
        writer = Writer(model, "int8")
        for site in find_sites(model):
            self._write(writer, site, products)
        if self._fused:
            model.opset_imports[MICROSOFT] = 1
        RemoveUnusedNodesPass()(model)
        move_biases_to_norms(model)
        return model

    def _write(self, writer: Writer, site: Site, products: Set[Product]) -> None:
        name = str(site.x.name)
        chosen = [i for i in range(len(site.linears)) if (name, i) in products]
        if chosen:
            recipe, rounded = self._plans[name]
            some = dataclasses.replace(site, linears=tuple(site.linears[i] for i in chosen))
            write_site(writer, some, recipe, [rounded[i] for i in chosen], fused=self._fused)


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
