"""What several subcommands share: arguments, and tables of text."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from fmrt.manifest import Variant

MEGABYTE = 1e6


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The bundle to use."""
    parser.add_argument("bundle", help="a bundle's directory, or a hub repository that holds one")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Which graph runs where."""
    parser.add_argument("--variant", help="a graph that fmrt info lists (default: the best fp32)")
    parser.add_argument(
        "--provider", default="cpu", help="execution provider: cpu, cuda or auto (default: cpu)"
    )


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """What goes in front of a text."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--prompt-name", help="a prompt of the model, by name")
    group.add_argument("--prompt", help="text to put in front of every text")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def variants_table(variants: Iterable[Variant]) -> str:
    """A bundle's graphs, with their parity as measured by the export."""
    header = (
        "variant",
        "file",
        "provider",
        "precision",
        "size",
        "max abs error",
        "mean cosine",
        "min cosine",
    )
    return table(header, map(_variant_row, variants))


def _variant_row(variant: Variant) -> tuple[str, ...]:
    size = variant.size + sum(record.size for record in variant.external.values())
    parity = variant.parity
    measured = ("?",) * 3
    if parity is not None:
        measured = (
            f"{parity.max_abs_error:.1e}",
            f"{parity.mean_cosine:.6f}",
            f"{parity.min_cosine:.6f}",
        )
    return (
        variant.name,
        variant.file,
        variant.provider,
        variant.precision,
        f"{size / MEGABYTE:,.1f} MB",
        *measured,
    )
