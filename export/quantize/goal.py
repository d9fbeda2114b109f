"""What a quantized variant must reach: a cosine with fp32, or what fp32 reaches on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Evaluated, Variant

# Name of a variant that is not in the bundle yet.
TRIAL = "trial"
# Mean cosines to make a variant for, one after the other, until its measures are kept.
LADDER = (0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
# Takes a bundle, a variant, the fp32 one that it is compared with, and the provider of both.
Judge = Callable[[Bundle, str, str, str], Evaluated]


@dataclass(frozen=True)
class Goal:
    """What a variant must reach.

    Attributes:
        cosines: The mean cosines with fp32 on held-out items, from the lowest on.
        judge: A function that compares a variant with fp32 on a data set; None where the cosine
            alone counts.
    """

    cosines: Sequence[float]
    judge: Judge | None = None


def lost(found: Evaluated) -> str:
    """The measures that a variant does not keep, in words; empty where it keeps all."""
    return ", ".join(
        f"{m.task} {m.name} {m.value - m.fp32:+.4f}" for m in found.measures if not m.kept
    )


def with_evaluation(variant: Variant, found: Evaluated) -> Variant:
    """The variant, with what it keeps; one that was not measured stays as it is."""
    if variant.quality is None:
        return variant
    quality = dataclasses.replace(variant.quality, evaluated=found)
    return dataclasses.replace(variant, quality=quality)
