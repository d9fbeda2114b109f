"""How one site's activations become 8-bit numbers, chosen by the error of the products after it.

Two forms, both the same for a row whatever its batch mates:

``static``: after a layer normalization, whose rows are all of one size. Each feature's calibrated
range is brought to the same width and centred by the normalization's own scale and bias, so that
one constant scale serves all and is multiplied into the weights': no pass over the activations
next to the rounding itself.

``row``: one scale per row, from its largest and smallest value; the zero point is a constant of the
site. It is what GELU needs, whose values are never below -0.17: a zero point near 20 spends most
of the 255 steps on the positive side.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from fmrt.arrays import Floats
from fmrt.export.quantize.rounding import LARGEST
from fmrt.export.quantize.sites import Site

STEPS = 255
MIDDLE = 128
ZEROS = (128, 8, 16, 24, 32, 48, 64, 96, 160)
# How much of a feature's range, and how much of its weights', goes into the smoothing of a static
# site; 1 gives every feature the whole range.
STRENGTHS = (1.0, 0.94, 0.88, 0.82, 0.7)
# What calibration did not see gets this much more room.
MARGIN = 1.05
TINY = 1e-8
# Rows on which the candidates are compared; ranges are taken from all.
RATED = 2048
# The part of the error of rounding weights to nearest that `round_weights` leaves.
ROUNDING_KEEPS = 0.6
# A static scale is cheaper; it is taken unless its error is this many times the other's.
STATIC_BONUS = 2.5


@dataclass(frozen=True)
class Recipe:
    """What happens to a site's tensor before its products.

    Attributes:
        zero: The zero point of the unsigned 8-bit numbers.
        scale: The constant scale, or None for one scale per row.
        shift: The value that is subtracted from each feature first, float32 ``[K]``.
        stretch: The value that each feature is divided by then, float32 ``[K]``.
        error: The squared error of the products, as a fraction of their variance.
        floor: The value that no value is below, where that is known; the scale of a row then needs
            no look at its smallest value.
    """

    zero: int
    scale: float | None
    shift: Floats
    stretch: Floats
    error: float
    floor: float | None = None

    def quantized(self, rows: Floats) -> Floats:
        """Rows ``[n, K]`` as the products see them: shifted, stretched, rounded, scaled back."""
        smooth = (rows - self.shift) / self.stretch
        scale = self.scale if self.scale is not None else row_scales(smooth, self.zero, self.floor)
        rounded = np.clip(np.round(smooth / scale) + self.zero, 0, STEPS)
        return np.asarray((rounded - self.zero) * scale, np.float32)


def row_scales(rows: Floats, zero: int, floor: float | None = None) -> Floats:
    """Scale of each row ``[n, 1]``, as the graph computes it."""
    high = rows.max(axis=1, keepdims=True) / (STEPS - zero)
    low = (rows.min(axis=1, keepdims=True) if floor is None else floor) / -zero
    return np.asarray(np.maximum(np.maximum(high, low), TINY), np.float32)


def choose_recipe(site: Site, rows: Floats) -> Recipe:
    """The recipe with the least error on the calibration rows ``[n, K]``."""
    weight = np.concatenate([linear.weight for linear in site.linears], axis=1)
    few = rows[:RATED]
    products = few @ weight
    spread = float(np.square(products - products.mean(axis=0)).sum()) or 1.0

    def rated(zero: int, scale: float | None, shift: Floats, stretch: Floats) -> Recipe:
        recipe = Recipe(zero, scale, shift, stretch, 0.0, site.floor)
        smooth = (few - shift) / stretch
        stretched = weight * stretch[:, None]
        error = float(np.square((recipe.quantized(few) - smooth) @ stretched).sum())
        error += _weights_error(smooth, stretched)
        return dataclasses.replace(recipe, error=error / spread)

    nothing, ones = np.zeros(site.features, np.float32), np.ones(site.features, np.float32)
    by_row = min((rated(z, None, nothing, ones) for z in ZEROS), key=lambda r: r.error)
    if site.norm is None:
        return by_row
    static = min((rated(*_static(rows, weight, s)) for s in STRENGTHS), key=lambda r: r.error)
    smooth = rated(MIDDLE, None, *_smoothing(rows, weight, 0.5, rows.mean(axis=0)))
    by_row = min(by_row, smooth, key=lambda r: r.error)
    return static if static.error <= STATIC_BONUS * by_row.error else by_row


def _weights_error(rows: Floats, weight: Floats) -> float:
    """About what rounding the weights will add to the squared error of the products."""
    step = np.abs(weight).max(axis=0) / LARGEST
    return float(np.square(rows).sum() * np.square(step).sum() / 12 * ROUNDING_KEEPS)


def _static(rows: Floats, weight: Floats, strength: float) -> tuple[int, float, Floats, Floats]:
    middle = (rows.max(axis=0) + rows.min(axis=0)) / 2
    shift, stretch = _smoothing(rows, weight, strength, middle)
    reach = float(np.abs((rows - shift) / stretch).max())
    return MIDDLE, max(reach * MARGIN / (STEPS - MIDDLE), TINY), shift, stretch


def _smoothing(
    rows: Floats, weight: Floats, strength: float, shift: Floats
) -> tuple[Floats, Floats]:
    """Shift, and stretch ``range^strength / weight^(1 - strength)``, of geometric mean 1."""
    reach = np.maximum(np.abs(rows - shift).max(axis=0), 1e-5)
    heaviest = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    stretch = reach**strength / heaviest ** (1 - strength)
    stretch = stretch / np.exp(np.log(stretch).mean())
    return shift.astype(np.float32), stretch.astype(np.float32)
