"""Export a Hugging Face model to a bundle, verified against PyTorch."""

from __future__ import annotations

import argparse

from fmrt._api import export_model
from fmrt.cli._common import variants_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", help="hub id or local directory")
    parser.add_argument("out", help="directory of the bundle")
    parser.add_argument(
        "--pooling",
        help="cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken, or several joined "
        "with + (default: as the model says)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="end in L2 normalization, or not (default: as the model says)",
    )
    parser.add_argument("--max-length", type=int, help="most tokens of a text")
    parser.add_argument("--opset", type=int, help="ONNX opset version")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="cpu", help="torch device of the conversion")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle at OUT")


def run(args: argparse.Namespace) -> int:
    """Export, and say what was chosen and how near the vectors are to PyTorch's."""
    bundle = export_model(
        args.model,
        args.out,
        pooling=args.pooling,
        normalize=args.normalize,
        max_length=args.max_length,
        opset=args.opset,
        revision=args.revision,
        device=args.device,
        overwrite=args.overwrite,
        report=lambda line: print(line, flush=True),
    )
    print(f"\n{variants_table(bundle.manifest.variants)}\n")
    print(f"wrote {bundle.path}; try: fmrt embed {bundle.path} texts.txt -o vectors.npy")
    return 0
