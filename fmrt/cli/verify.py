"""Check a bundle's vectors against those that PyTorch gave at export."""

from __future__ import annotations

import argparse
import sys

from fmrt.bundle import Bundle
from fmrt.cli._common import add_bundle, add_runtime, table
from fmrt.verify import ParityReport, verify_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_bundle(parser)
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Print a row a variant; exit code 1 when one fails."""
    bundle = Bundle.from_pretrained(args.bundle, variant=args.variant, provider=args.provider)
    reports = list(verify_bundle(bundle, args.variant, args.provider))
    header = (
        "variant",
        "provider",
        "items",
        "max abs error",
        "mean cosine",
        "min cosine",
        "verdict",
    )
    print(table(header, map(_row, reports)))
    failed = [report.variant for report in reports if not report.passed]
    if failed:
        print(f"fmrt: error: not PyTorch's vectors: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _row(report: ParityReport) -> tuple[str, ...]:
    parity = report.parity
    return (
        report.variant,
        report.provider,
        str(report.items),
        f"{parity.max_abs_error:.1e}",
        f"{parity.mean_cosine:.6f}",
        f"{parity.min_cosine:.6f}",
        "ok" if report.passed else "FAILED",
    )
