"""``fmrt info``: what a bundle is."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from fmrt.cli._arguments import Subparsers
from fmrt.cli._text import size, table
from fmrt.cli._variants import variants_table

if TYPE_CHECKING:
    from fmrt.bundle import Bundle
    from fmrt.manifest import Manifest


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "info", help="say what a bundle is", description="Say what a bundle is; load nothing."
    )
    parser.set_defaults(run=run)
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the manifest, for people or as JSON."""
    from fmrt.bundle import Bundle  # noqa: PLC0415  # start-up stays quick

    bundle = Bundle.open(args.bundle)
    if args.json:
        print(json.dumps(dataclasses.asdict(bundle.manifest), indent=2))
        return 0
    lines = table(("bundle", str(bundle.path)), _facts(bundle))
    print(f"{lines}\n\n{variants_table(bundle.manifest.variants)}")
    return 0


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    source = manifest.source
    packages = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    total = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
    without = "" if manifest.include_prompt else ", without the prompt's tokens"
    return [
        ("source", source.model + (f" at {source.revision}" if source.revision else "")),
        ("weights", f"SHA-256 {source.weights_sha256}"),
        ("model type", manifest.model_type),
        ("modality", manifest.modality),
        ("dimensions", str(manifest.dim)),
        ("matryoshka", ", ".join(map(str, manifest.matryoshka_dims)) or "none"),
        ("max length", f"{manifest.max_length:,} tokens"),
        ("pooling", manifest.pooling + without),
        ("normalize", "yes" if manifest.normalize else "no"),
        *_prompts(manifest),
        ("made by", f"fmrt {manifest.fmrt_version}, {packages or 'unknown packages'}"),
        ("total size", size(total)),
    ]


def _prompts(manifest: Manifest) -> list[tuple[str, str]]:
    if not manifest.prompts:
        return [("prompts", "none")]
    default = manifest.default_prompt_name
    return [
        (f"prompt {name}", repr(text) + (" (the default)" if name == default else ""))
        for name, text in manifest.prompts.items()
    ]
