"""Say what a bundle is: its model, options, variants, sizes and parity."""

from __future__ import annotations

import argparse
import dataclasses
import json

from fmrt.bundle import Bundle
from fmrt.cli._common import MEGABYTE, add_bundle, table, variants_table
from fmrt.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    add_bundle(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the manifest for people, or as JSON."""
    bundle = Bundle.from_pretrained(args.bundle)
    if args.json:
        print(json.dumps(dataclasses.asdict(bundle.manifest), indent=2, ensure_ascii=False))
        return 0
    size = sum(f.stat().st_size for f in bundle.path.rglob("*") if f.is_file())
    facts = {**_facts(bundle.manifest), "size": f"{size / MEGABYTE:,.1f} MB"}
    print(table((str(bundle.path), ""), facts.items()))
    print(f"\n{variants_table(bundle.manifest.variants)}")
    return 0


def _facts(manifest: Manifest) -> dict[str, str]:
    revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
    prompts = (f"{name}={text!r}" for name, text in manifest.prompts.items() if text)
    return {
        "source": manifest.source.model + revision,
        "weights": f"sha256 {manifest.source.weights_sha256}",
        "model type": f"{manifest.model_type} ({manifest.modality})",
        "dimensions": str(manifest.dim),
        "matryoshka": ", ".join(map(str, manifest.matryoshka_dims)) or "none declared",
        "max length": f"{manifest.max_length} tokens",
        "pooling": manifest.pooling + ("" if manifest.include_prompt else ", without the prompt"),
        "normalize": "yes" if manifest.normalize else "no",
        "prompts": ", ".join(prompts) or "none",
        "default prompt": manifest.default_prompt_name or "none",
        "exported by": f"fmrt {manifest.fmrt_version}, "
        + ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
    }
