"""The table of quantization schemes and of the variants that each adds to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fmrt.export.quantize.context import Context, Made
from fmrt.export.quantize.fp16 import compute_half, store_half
from fmrt.export.quantize.int4 import weights_in_4_bits
from fmrt.export.quantize.int8 import fused_int8, standard_int8


@dataclass(frozen=True)
class Form:
    """A variant that a scheme makes.

    Attributes:
        variant: its name.
        suffix: of the graph's file, behind the tower's stem.
        provider: that it runs on, or ``any``.
        precision: a key of `fmrt.verify.TOLERANCES`.
        base: provider of the fp32 variant that it is made from; the portable one where that lacks.
        make: quantizes.
        rounds: whether activations are rounded, so that other last bits in front of a step could
            change a vector: whether padding does that is tried.
        mapped: whether the weights go to a file of their own, to be mapped into memory.
    """

    variant: str
    suffix: str
    provider: str
    precision: str
    base: str
    make: Callable[[Context], Made]
    rounds: bool = False
    mapped: bool = False


SCHEMES: dict[str, tuple[Form, ...]] = {
    "fp16": (
        Form("fp16-cpu", "_fp16_cpu", "cpu", "fp16", "cpu", store_half),
        Form("fp16-cuda", "_fp16_cuda", "cuda", "fp16", "cuda", compute_half),
    ),
    "int8": (
        Form("int8-cpu", "_int8_cpu", "cpu", "int8", "cpu", fused_int8, rounds=True),
        Form("q8", "_quantized", "any", "int8", "any", standard_int8, rounds=True),
    ),
    "int4": (Form("q4", "_q4", "any", "int4", "any", weights_in_4_bits, mapped=True),),
}
