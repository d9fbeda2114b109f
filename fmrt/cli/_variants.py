"""The table of a bundle's variants, for export and info."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fmrt.cli._text import size, table

if TYPE_CHECKING:
    from fmrt.manifest import Parity, Variant

_PARITY = ("max abs error", "mean cosine", "min cosine")


def variants_table(variants: Iterable[Variant]) -> str:
    """Return a line a variant: what it is, its size with external weights, its parity."""
    header = ("variant", "modality", "file", "provider", "precision", "size", *_PARITY)
    return table(header, map(_row, variants), {"size", *_PARITY})


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
    )
