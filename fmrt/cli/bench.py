"""``fmrt bench``: throughput and latency on this machine, against its matrix-multiply peak."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from fmrt.cli._arguments import Subparsers, add_model, open_bundle, positive
from fmrt.cli._say import as_json, print_json, show
from fmrt.cli._text import table
from fmrt.cli.tune import add_items, items_of
from fmrt.errors import OptionError
from fmrt.options import UNNAMED

if TYPE_CHECKING:
    from fmrt.measure import Bench

_PLOTS = (".html", ".png", ".svg")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "bench",
        help="measure throughput and latency on this machine",
        description="Embed items over and over; on the CPU, matrix products alone, by every kernel "
        "that is installed, take turns with them, for the part of the machine's peak that the "
        "model reaches. On a GPU that is one large product, and nvidia-smi says how busy it was.",
    )
    parser.set_defaults(run=run)
    add_model(parser, UNNAMED)
    parser.add_argument("--modality", metavar="M", help="text, image or audio (default: the first)")
    add_items(parser)
    parser.add_argument("--rounds", metavar="N", type=positive, default=5, help="(default: 5)")
    parser.add_argument(
        "--json",
        metavar="FILE.json",
        nargs="?",
        const="-",
        help="print the figures as JSON, or write them to a file",
    )
    parser.may_follow["--json"] = r"-|.*\.json"
    parser.add_argument(
        "--plot", metavar="FILE", help="draw them: .html, .svg, or .png with matplotlib"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        OptionError: ``--plot`` names no known kind of file.
    """
    from fmrt.embedding.choice import chosen
    from fmrt.embedding.engine import Engine
    from fmrt.measure import bench
    from fmrt.measure.plot import draw

    if args.plot is not None and Path(args.plot).suffix not in _PLOTS:
        raise OptionError(f"--plot {args.plot!r}; choose a name that ends in {', '.join(_PLOTS)}")
    bundle, provider = open_bundle(args)
    variant = args.variant
    if args.provider == UNNAMED:
        variant, provider = chosen(bundle, variant, UNNAMED, args.modality)
    engine = Engine(bundle, variant, provider, args.modality)
    try:
        found = bench(engine, bundle, items_of(args, engine, bundle), args.rounds)
        units = f"{engine.preprocess.unit}s"
    finally:
        engine.close()
    figures = dataclasses.asdict(found)
    if args.json == "-":
        print_json(figures)
    else:
        show(args, _table(found, units))
        if args.json is not None:
            Path(args.json).write_text(as_json(figures) + "\n", encoding="utf-8")
    if args.plot is not None:
        draw(found, Path(args.plot))
    return 0


def _table(found: Bench, units: str) -> str:
    rows = [
        ("variant", f"{found.variant} on {found.provider}"),
        ("processor", f"{found.cpu}, {found.cores} cores, ONNX Runtime {found.runtime}"),
        (
            "batches",
            f"{found.workers} at a time, {found.intra_op_threads} threads in an operator, at most "
            f"{found.batch_tokens:,} tokens",
        ),
        ("items", f"{found.items:,} distinct {units}, {found.positions:,} tokens or patches"),
        ("throughput", f"{found.items_per_second:,.1f} {units}/s"),
        ("", f"{found.positions_per_second:,.0f} tokens or patches/s"),
        ("padding", f"{found.padding:.1%} of what is computed"),
        ("computed", f"{found.flops / min(found.seconds) / 1e9:,.0f} GFLOP/s in matrix products"),
    ]
    if found.peak_flops_per_second is not None:
        kernels = ", ".join(
            f"{name} {rate / 1e9:,.0f} GFLOP/s"
            for name, rate in sorted(found.peak_kernels.items(), key=lambda item: -item[1])
        )
        rows.append(("products alone", kernels))
        rows.append(("of the fastest", found.peak_error or f"{found.peak_fraction:.0%}"))
    if found.gpu is not None:
        busy = "not known, as nvidia-smi does not say" if found.gpu_busy is None else ""
        rows.append(("GPU", f"{found.gpu}, busy: {busy or f'{found.gpu_busy:.0%}'}"))
    if found.environment:
        held = " ".join(f"{name}={value}" for name, value in found.environment.items())
        rows.append(("environment", f"{held}; it chooses kernels"))
    shown = ", ".join(f"{name} {1e3 * s:,.2f} ms" for name, s in found.latency.items())
    return table(("alone", shown), rows)
