"""The table of a bundle's variants, for export and info."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fmrt.cli._text import size, table

if TYPE_CHECKING:
    from fmrt.bundle.manifest import Parity, Quality, Variant

_WHAT = ("variant", "modality", "file", "provider", "precision")
_PARITY = ("max abs error", "mean cosine", "min cosine")
_QUALITY = (
    "quantized",
    "modality",
    "held-out items",
    "mean cosine",
    "min cosine",
    "products kept",
    "times fp32's speed",
    "measured on",
)


def variants_table(variants: Iterable[Variant]) -> str:
    """Return one line per variant: what it is, its size with external weights, its parity.

    A second table says what quantized ones are worth on items that nothing was chosen on.
    """
    variants = list(variants)
    header = (*_WHAT, "size", *_PARITY, "checked on")
    lines = table(header, map(_row, variants), {"size", *_PARITY})
    quantized = [_quality_row(v, v.quality) for v in variants if v.quality is not None]
    if not quantized:
        return lines
    return f"{lines}\n\n{table(_QUALITY, quantized, set(_QUALITY[2:-1]))}"


def parity_cells(parity: Parity | None) -> tuple[str, str, str]:
    """Return max abs error, mean and worst cosine for a table."""
    if parity is None:
        return ("-", "-", "-")
    return (
        f"{parity.max_abs_error:.1e}",
        f"{parity.mean_cosine:.6f}",
        f"{parity.min_cosine:.6f}",
    )


def _row(variant: Variant) -> tuple[str, ...]:
    total = variant.size + sum(record.size for record in variant.external.values())
    return (
        variant.name,
        variant.modality,
        variant.file,
        variant.provider,
        variant.precision,
        size(total),
        *parity_cells(variant.parity),
        variant.checked_on or "-",
    )


def _quality_row(variant: Variant, quality: Quality) -> tuple[str, ...]:
    return (
        variant.name,
        variant.modality,
        f"{quality.items:,}",
        f"{quality.mean_cosine:.6f}",
        f"{quality.min_cosine:.6f}",
        f"{quality.kept:,} of {quality.products:,}" if quality.products else "-",
        "-" if quality.speed is None else f"{quality.speed:.2f}",
        quality.cpu,
    )
