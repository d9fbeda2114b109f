"""``fmrt package``: the smallest set of files that embeds as a bundle does."""

from __future__ import annotations

import argparse
import shlex

from fmrt.cli._arguments import Subparsers, add_pin, names_in
from fmrt.cli._say import reporter, show
from fmrt.cli._status import DONE


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "package",
        help="make the smallest set of files that embeds, in a folder or one file",
        description="Write the files of a bundle that embedding with one variant needs, verify "
        "them, and measure on this machine what they take and what they are worth. Needs "
        "fmrt[quantize], but not PyTorch.",
    )
    parser.set_defaults(run=run, needs="fmrt.export.package")
    parser.add_argument(
        "bundle", metavar="BUNDLE", help="a bundle's directory, its .fmrt file, or its hub id"
    )
    parser.add_argument("out", metavar="OUT", help="the new directory, or the new .fmrt file")
    parser.add_argument(
        "--single-file",
        action="store_true",
        help="write one .fmrt file, whose weights are mapped into memory where they are",
    )
    parser.add_argument(
        "--compress",
        action="store_true",
        help="compress the one file: about a tenth smaller, and unpacked into memory at each load",
    )
    parser.add_argument(
        "--variant",
        metavar="V",
        type=names_in,
        help="a variant's name or a precision, or several joined with commas (default: w8, whose "
        "vectors every processor gives alike, or without it what the CPU takes unasked)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="texts, one a line, or tokens, one a line: keep only the tokens that these need",
    )
    parser.add_argument(
        "--all-tokens",
        action="store_true",
        help="keep the tokens too that no text can have, and with them every token's id",
    )
    parser.add_argument(
        "--ort",
        action="store_true",
        help="write ONNX Runtime's own format too, and the operators that a reduced build needs",
    )
    add_pin(parser)


def run(args: argparse.Namespace) -> int:
    """Make the package, and print its card and what to do next."""
    from fmrt._api import package_bundle

    bundle = package_bundle(
        args.bundle,
        args.out,
        single_file=args.single_file,
        compress=args.compress,
        variant=args.variant,
        vocabulary=args.vocabulary,
        all_tokens=args.all_tokens,
        ort=args.ort,
        revision=args.revision,
        sha256=args.sha256,
        report=reporter(args),
    )
    show(args, f"SHA-256 of its manifest, for --sha256: {bundle.manifest_sha256}")
    show(args, f"next: fmrt embed {shlex.quote(str(bundle.path))} texts.txt -o vectors.npy")
    return DONE
