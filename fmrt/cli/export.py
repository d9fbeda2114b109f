"""``fmrt export``: a Hugging Face model becomes a bundle."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from fmrt.cli._arguments import Parser, Subparsers, names_in, positive
from fmrt.cli._say import reporter, show
from fmrt.cli._status import DONE
from fmrt.cli.quantize import SCHEMES, add_quality, print_variants
from fmrt.errors import QuantizationError

if TYPE_CHECKING:
    from fmrt.bundle.bundle import Bundle


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "export",
        help="make a bundle of a Hugging Face model",
        description="Export a model to a bundle, verified against PyTorch. Needs fmrt[export].",
    )
    parser.set_defaults(run=run, needs="fmrt.export.bundle")
    parser.add_argument("model", metavar="MODEL", help="hub id or local directory")
    parser.add_argument("out", metavar="OUT", help="directory of the bundle")
    _add_choices(parser)
    parser.add_argument("--opset", metavar="N", type=positive, help="ONNX opset version")
    parser.add_argument(
        "--exporter",
        metavar="E",
        help="what converts to ONNX: transformers, which is 5 then, or optimum with transformers 4 "
        "(default: the one that is installed)",
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a hub model")
    parser.add_argument(
        "--device", metavar="D", default="cpu", help="torch device of the conversion (default: cpu)"
    )
    parser.add_argument(
        "--quantize",
        metavar="SCHEMES",
        type=names_in,
        default=[],
        help=f"add quantized variants: {SCHEMES}",
    )
    add_quality(parser)
    parser.add_argument(
        "--cuda",
        action="store_true",
        help="add variants in fp32, fp16 and bf16 for GPUs",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python files of the model's directory where it needs them; read them first",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle at OUT")


def _add_choices(parser: Parser) -> None:
    """Add the options that replace what the model says."""
    parser.add_argument(
        "--output",
        metavar="WHAT",
        default="pooled",
        help="pooled for one vector per item, or patch for one vector per patch of an image "
        "(default: pooled)",
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
    parser.add_argument(
        "--adapter",
        metavar="A[=W]",
        type=_weighted,
        action="append",
        default=[],
        help="a PEFT adapter to merge: its directory or hub id; several add up, each times its "
        "weight W (default: 1)",
    )


def _weighted(text: str) -> tuple[str, float]:
    """``name`` or ``name=weight``."""
    name, _, weight = text.rpartition("=")
    try:
        return (name, float(weight)) if name else (text, 1.0)
    except ValueError:  # the sign is part of the name
        return text, 1.0


def run(args: argparse.Namespace) -> int:
    """Export, and print what was chosen, how close to PyTorch it is, and what to do next.

    Raises:
        ExportError: The model cannot be exported.
        QuantizationError: It is, but a quantized variant did not pass; the others were printed.
    """
    from fmrt.bundle.bundle import Bundle

    try:
        bundle = _exported(args)
    except QuantizationError:
        print_variants(args, Bundle.open(args.out))
        raise
    print_variants(args, bundle)
    out = shlex.quote(args.out)
    if bundle.manifest.heads:
        show(args, f"next: fmrt segment {out} image.jpg --point X,Y -o masks")
    else:
        show(args, f"next: fmrt embed {out} texts.txt -o vectors.npy")
    return DONE


def _exported(args: argparse.Namespace) -> Bundle:
    from fmrt._api import export_model

    return export_model(
        args.model,
        args.out,
        output=args.output,
        pooling=args.pooling,
        normalize=args.normalize,
        max_length=args.max_length,
        adapter=args.adapter,
        opset=args.opset,
        exporter=args.exporter,
        revision=args.revision,
        device=args.device,
        quantize=args.quantize,
        min_cosine=args.min_cosine,
        calibration=args.calibration,
        cuda=args.cuda,
        trust_remote_code=args.trust_remote_code,
        overwrite=args.overwrite,
        report=reporter(args),
    )
