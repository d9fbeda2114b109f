"""``fmrt quantize``: smaller and faster variants for an existing bundle."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from fmrt.cli._arguments import Subparsers, add_pin, names_in, real
from fmrt.cli._say import reporter, show
from fmrt.cli._status import DONE
from fmrt.cli._variants import variants_table
from fmrt.errors import QuantizationError

if TYPE_CHECKING:
    from fmrt.bundle.bundle import Bundle

SCHEMES = "fp16, int8 (or q8), int4 (or q4), bf16 or w8, or several joined with commas"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "quantize",
        help="add smaller and faster variants to a bundle",
        description="Add quantized variants to a bundle, each as soon as it has passed; the others "
        "stay as they are. Ends with 3 where only some passed. Needs fmrt[quantize], but not "
        "PyTorch.",
    )
    parser.set_defaults(run=run, needs="fmrt.export.quantize")
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    parser.add_argument("schemes", metavar="SCHEMES", type=names_in, help=SCHEMES)
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        help="a new directory for the bundle with its new variants (default: BUNDLE itself; for a "
        "hub id, its name)",
    )
    add_pin(parser)
    add_quality(parser)
    parser.add_argument(
        "--evaluate",
        metavar="DATA",
        help="a data set of fmrt evaluate: a variant is added if it keeps the measures of fp32 on "
        "it, in place of --min-cosine. Needs fmrt[evaluate]",
    )
    parser.add_argument(
        "--tolerance",
        metavar="T",
        type=real,
        default=0.005,
        help="with --evaluate: loss of a measure that is accepted in any case; a larger one is if "
        "it cannot be told from zero (default: %(default)s)",
    )


def add_quality(parser: argparse.ArgumentParser) -> None:
    """Add what a quantized variant must reach, and on what."""
    parser.add_argument(
        "--min-cosine",
        metavar="C",
        type=real,
        default=0.999,
        help="mean cosine with the fp32 vectors that a quantized variant must reach on held-out "
        "calibration items (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="your own items to calibrate on: one text per line, or a folder of images or sounds "
        "(default: the exporter's)",
    )


def run(args: argparse.Namespace) -> int:
    """Quantize, and print the bundle's variants and what to do next.

    Raises:
        QuantizationError: A variant did not pass; those that did have been printed.
    """
    from fmrt._api import quantize_bundle
    from fmrt.bundle.bundle import Bundle

    try:
        bundle = quantize_bundle(
            args.bundle,
            args.schemes,
            min_cosine=args.min_cosine,
            calibration=args.calibration,
            evaluate=args.evaluate,
            tolerance=args.tolerance,
            out=args.out,
            revision=args.revision,
            sha256=args.sha256,
            report=reporter(args),
        )
    except QuantizationError as e:
        if e.added:
            print_variants(args, Bundle.open(e.path or args.bundle))
        raise
    print_variants(args, bundle)
    # The latest that runs here; a precision stands for the provider's own variant.
    precision = next(
        v.precision for v in reversed(bundle.manifest.variants) if v.provider in ("any", "cpu")
    )
    name = shlex.quote(str(bundle.path))
    show(args, f"next: fmrt embed {name} texts.txt -o vectors.npy --variant {precision}")
    return DONE


def print_variants(args: argparse.Namespace, bundle: Bundle) -> None:
    """Print the table of a bundle's variants, and the hash that pins the bundle."""
    show(args, f"\n{variants_table(bundle.manifest.graphs)}\n")
    show(args, f"SHA-256 of its manifest, for --sha256: {bundle.manifest_sha256}")
