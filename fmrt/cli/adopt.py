"""``fmrt adopt``: ONNX graphs that another tool exported become a bundle."""

from __future__ import annotations

import argparse
import shlex

from fmrt.cli._arguments import Subparsers, positive
from fmrt.cli._say import reporter, show
from fmrt.cli._status import DONE
from fmrt.cli.quantize import print_variants


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "adopt",
        help="make a bundle of ONNX graphs that another tool exported",
        description="Make a bundle of a model's ONNX graphs, as optimum, transformers.js, "
        "sentence-transformers and fastembed have them, verified against PyTorch where there are "
        "weights. Needs fmrt[export].",
    )
    parser.set_defaults(run=run, needs="fmrt.export.adopt.bundle")
    parser.add_argument(
        "graphs",
        metavar="ONNX_DIR",
        help="directory or hub id with one model's graphs and what prepares its items, or a "
        "graph's file",
    )
    parser.add_argument("out", metavar="OUT", help="directory of the bundle")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="the PyTorch model that they were made from, to verify them against (default: the "
        "weights in ONNX_DIR, if there are any)",
    )
    parser.add_argument(
        "--record-reference",
        action="store_true",
        help="without weights, compare quantized graphs with the fp32 graph's own vectors",
    )
    parser.add_argument(
        "--pooling",
        metavar="MODE",
        help="cls, mean, max, mean_sqrt_len_tokens, weightedmean, lasttoken, or several joined "
        "with +; for images cls, mean or pooler (default: as the model says)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="whether to end in L2 normalization (default: as the model says)",
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=positive,
        help="most tokens of a text, special ones too, or seconds of a sound",
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python files of the model's directory where it needs them; read them first",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle at OUT")


def run(args: argparse.Namespace) -> int:
    """Adopt, and print what was chosen, how close to the reference it is, and what to do next.

    Raises:
        ExportError: The graphs cannot be adopted.
    """
    from fmrt._api import adopt_onnx

    bundle = adopt_onnx(
        args.graphs,
        args.out,
        model=args.model,
        pooling=args.pooling,
        normalize=args.normalize,
        max_length=args.max_length,
        revision=args.revision,
        record_reference=args.record_reference,
        trust_remote_code=args.trust_remote_code,
        overwrite=args.overwrite,
        report=reporter(args),
    )
    print_variants(args, bundle)
    variants = bundle.manifest.variants
    fp32 = any(variant.precision == "fp32" for variant in variants)
    chosen = "" if fp32 else f" --variant {variants[0].name}"
    show(args, f"next: fmrt embed {shlex.quote(args.out)} texts.txt -o vectors.npy{chosen}")
    return DONE
