"""The table of quantization schemes and of the variants that each adds to a bundle."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fmrt.errors import OptionError, quoted
from fmrt.export.quantize.context import Context, Made
from fmrt.export.quantize.fp16 import compute_half, store_half
from fmrt.export.quantize.int4 import weights_in_4_bits
from fmrt.export.quantize.int8 import fused_int8, standard_int8
from fmrt.export.quantize.stored_int8 import store_int8


@dataclass(frozen=True)
class Form:
    """A variant that a scheme makes.

    Attributes:
        variant: The name of the variant.
        suffix: The suffix of the graph's file, after the tower's stem.
        provider: The provider that it runs on, or ``any``.
        precision: A key of `fmrt.verify.TOLERANCES`.
        base: The provider of the fp32 variant that it is made from; where that variant is missing,
            the portable one is used.
        make: A function that quantizes.
        rounds: Whether activations are rounded, so that other last bits before a step could
            change a vector: whether padding does that is tried.
        mapped: Whether the weights go to a file of their own, to be mapped into memory.

    A form without ``make`` is the base's own graph, which its provider computes in another
    precision.
    """

    variant: str
    suffix: str
    provider: str
    precision: str
    base: str
    make: Callable[[Context], Made] | None
    rounds: bool = False
    mapped: bool = False


SCHEMES: dict[str, tuple[Form, ...]] = {
    "fp16": (
        Form("fp16-cpu", "_fp16_cpu", "cpu", "fp16", "cpu", store_half),
        Form("fp16-cuda", "_fp16_cuda", "cuda", "fp16", "any", compute_half),
        Form("fp16-portable", "_fp16", "any", "fp16", "any", store_half),
    ),
    "int8": (
        Form("int8-cpu", "_int8_cpu", "cpu", "int8", "cpu", fused_int8, rounds=True),
        Form("q8", "_quantized", "any", "int8", "any", standard_int8, rounds=True),
    ),
    "int4": (Form("q4", "_q4", "any", "int4", "any", weights_in_4_bits, mapped=True),),
    "bf16": (Form("bf16", "", "openvino", "bf16", "any", None),),
    "w8": (Form("w8", "_int8", "any", "int8", "any", store_int8),),
}

# Names of other tools, and of this table's own variants, for a scheme.
ALIASES = {
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "quantized": "int8",
    "8bit": "int8",
    "4bit": "int4",
    **{form.variant: name for name, forms in SCHEMES.items() for form in forms},
}


def named_schemes(schemes: str | Sequence[str]) -> list[str]:
    """Keys of `SCHEMES`, each once, for names as people write them.

    Args:
        schemes: The keys, aliases or names of variants, in any case; a string may join several with
            commas.

    Raises:
        OptionError: A name is unknown, or there is none.
    """
    names = schemes.split(",") if isinstance(schemes, str) else schemes
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"schemes={quoted(schemes)}; give a list of: {', '.join(SCHEMES)}")
    found = [_named(name.strip()) for name in names if name.strip()]
    if not found:
        raise OptionError(f"no quantization named; choose from: {', '.join(SCHEMES)}")
    return list(dict.fromkeys(found))


def _named(name: str) -> str:
    key = name.lower()
    key = ALIASES.get(key, key)
    if key in SCHEMES:
        return key
    near = difflib.get_close_matches(key, [*SCHEMES, *ALIASES], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    choices = ", ".join(SCHEMES)
    raise OptionError(f"unknown quantization {name!r}; {meant}choose from: {choices}")
