"""``fmrt verify``: a bundle's vectors against PyTorch's."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import Subparsers, add_pin, add_variant
from fmrt.cli._say import print_json, show
from fmrt.cli._text import table
from fmrt.cli._variants import parity_cells
from fmrt.errors import OptionError, VariantNotFoundError, VerificationError

if TYPE_CHECKING:
    from fmrt.bundle.bundle import Bundle
    from fmrt.verify import ParityReport

_NUMBERS = ("items", "max abs error", "mean cosine", "worst cosine")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle's vectors against PyTorch's",
        description="Check every file's hash, and the vectors of one variant, or of all that run "
        "on the provider, against those that PyTorch gave at export.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    add_variant(parser)
    add_pin(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the reports as JSON, see docs/command-line.md"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write what was measured into the bundle's manifest: a GPU takes an fp16 variant by "
        "default once it has passed",
    )


def run(args: argparse.Namespace) -> int:
    """Print one line per variant.

    Raises:
        VerificationError: A variant's vectors are not PyTorch's.
        VariantNotFoundError: There is nothing to check.
    """
    from fmrt.bundle.bundle import Bundle
    from fmrt.session import resolve_provider
    from fmrt.verify import record_parity, verify_bundle

    provider = resolve_provider(args.provider).spec
    bundle = Bundle.open(args.bundle, args.sha256, args.revision)
    if args.record and bundle.repository is not None:
        raise OptionError(
            f"--record writes into a bundle, and {args.bundle} is on the hub; download it: "
            f"hf download {args.bundle} --local-dir BUNDLE"
        )
    reports = list(verify_bundle(bundle, args.variant, provider))
    if not reports:
        raise VariantNotFoundError(f"{args.bundle} has no variant that runs on {provider!r}")
    if not args.json:
        show(args, _table(reports))
    recorded = record_parity(bundle, reports) if args.record else []
    if args.json:
        print_json(_values(bundle, reports, recorded))
    elif args.record:
        show(args, f"recorded in {bundle.path}: {', '.join(recorded) or 'nothing new'}")
    failed = [report for report in reports if not report.passed]
    if failed:
        raise VerificationError(f"{args.bundle}: {_failures(failed)}")
    return 0


def _values(
    bundle: Bundle, reports: Sequence[ParityReport], recorded: Sequence[str]
) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "passed": all(report.passed for report in reports),
        "reports": [_report(report) for report in reports],
        "recorded": list(recorded),
    }


def _report(report: ParityReport) -> dict[str, Any]:
    """A report's values; without a measurement, that of an error is null."""
    values = dataclasses.asdict(report)
    parity = values.pop("parity")
    return values | (dict.fromkeys(parity) if report.error is not None else parity)


def _failures(failed: Sequence[ParityReport]) -> str:
    wrong = ", ".join(report.variant for report in failed if report.error is None)
    said = [f"not PyTorch's vectors: {wrong}; export the model again"] if wrong else []
    said += [f"{r.variant} does not run: {r.error}" for r in failed if r.error is not None]
    return "; ".join(said)


def _table(reports: Sequence[ParityReport]) -> str:
    header = ("variant", "modality", "provider", *_NUMBERS, "verdict")
    return table(header, map(_row, reports), _NUMBERS)


def _row(report: ParityReport) -> tuple[str, ...]:
    verdict = "ok" if report.passed else "FAILED" if report.error is None else "DOES NOT RUN"
    items = f"{report.items:,}"
    cells = parity_cells(report.parity if report.error is None else None)
    name = report.variant if report.form is None else f"{report.variant}, {report.form}"
    return (name, report.modality, report.provider, items, *cells, verdict)
