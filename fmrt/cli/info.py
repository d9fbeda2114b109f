"""``fmrt info``: what a bundle is; without one, what this machine is."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import Subparsers, add_pin
from fmrt.cli._say import print_json, show
from fmrt.cli._text import size, table
from fmrt.cli._variants import variants_table
from fmrt.errors import OptionError

if TYPE_CHECKING:
    from fmrt.bundle.bundle import Bundle
    from fmrt.bundle.manifest import AudioInput, ImageInput, TextInput, Tower, Variant
    from fmrt.session.placement import Placement

    # For each variant its placement, or the reason why its graph does not load.
    Placements = dict[str, Placement | str]


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "info",
        help="say what a bundle is, or this machine",
        description="Say what a bundle is. With --provider, load its graphs there, and count the "
        "nodes that run on it. Without a bundle, say what a report of a problem needs: versions, "
        "the processor and its cores, memory, and what chooses kernels.",
    )
    parser.set_defaults(run=run, needs="fmrt.bundle.bundle")
    parser.add_argument(
        "bundle", metavar="BUNDLE", nargs="?", help="a bundle's directory, or its hub id"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--provider",
        metavar="P",
        help="where to load the graphs that run there: as for fmrt embed (default: nowhere)",
    )
    where.add_argument(
        "--providers",
        action="store_true",
        help="without a bundle: list the providers that this machine could have, and their "
        "devices or why one cannot be had",
    )
    add_pin(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what a bundle is and where its nodes run, or what this machine is.

    Raises:
        OptionError: An option of bundles without a bundle, or the reverse.
        ProviderError: A graph does not load on the provider; the others have been printed.
    """
    if args.bundle is None or args.providers:
        return _machine(args)
    from fmrt.bundle.bundle import Bundle
    from fmrt.errors import ProviderError

    bundle = Bundle.open(args.bundle, args.sha256, args.revision)
    placements = _placements(bundle, args.provider) if args.provider else {}
    if args.json:
        print_json(_values(bundle, placements))
    else:
        show(args, _for_people(bundle, placements))
    failed = [f"{file} {what}" for file, what in placements.items() if isinstance(what, str)]
    if failed:
        raise ProviderError(f"{args.bundle}: {'; '.join(failed)}")
    return 0


def _machine(args: argparse.Namespace) -> int:
    if args.bundle is not None:
        raise OptionError(
            f"--providers is about this machine, and no bundle: leave {args.bundle!r} out"
        )
    given = [n for n in ("provider", "sha256", "revision") if getattr(args, n) is not None]
    if given:
        more = "; --providers lists providers" if given == ["provider"] else ""
        raise OptionError(f"--{given[0]} is about a bundle: name one{more}")
    from fmrt.cli import _machine as machine

    print_it = machine.providers if args.providers else machine.machine
    print_it(args)
    return 0


def _values(bundle: Bundle, placements: Placements) -> dict[str, Any]:
    placed = {
        file: {"error": what} if isinstance(what, str) else dataclasses.asdict(what)
        for file, what in placements.items()
    }
    more: dict[str, Any] = {"placements": placed} if placed else {}
    if choices := _choices(bundle):
        more["chosen"] = choices
    return dataclasses.asdict(bundle.manifest) | more


def _for_people(bundle: Bundle, placements: Placements) -> str:
    facts = table(("bundle", str(bundle.repository or bundle.path)), _facts(bundle))
    parts = [facts, variants_table(bundle.manifest.graphs)]
    if placements:
        rows = [(file, str(what)) for file, what in placements.items()]
        parts.append(table(("graph", "where its nodes run"), rows))
    return "\n\n".join(parts)


def _placements(bundle: Bundle, provider: str) -> Placements:
    """Where the nodes of each graph that a provider takes run, by file; of others why not."""
    from fmrt.errors import FmrtError
    from fmrt.session import resolve_provider
    from fmrt.session.placement import node_placement

    target = resolve_provider(provider)
    found: Placements = {}
    for variant in bundle.manifest.graphs:
        if variant.provider not in ("any", target.name):
            continue
        try:
            found[variant.file] = node_placement(bundle.graph(variant), target)
        except FmrtError as e:
            found[variant.file] = f"does not load: {e}"
    return found


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    source = manifest.source
    packages = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    total = _total(bundle)
    return [
        ("source", source.model + (f" at {source.revision}" if source.revision else "")),
        ("weights", f"SHA-256 {source.weights_sha256}"),
        *(("adapter", f"{a.model}, weight {a.weight:g}") for a in source.adapters),
        ("model type", manifest.model_type),
        ("dimensions", str(manifest.dim)),
        ("matryoshka", ", ".join(map(str, manifest.matryoshka_dims)) or "none"),
        *(fact for tower in manifest.towers for fact in _tower(tower)),
        *(("can", f"{head.task} {head.modality}s") for head in manifest.heads),
        *([("verified", manifest.unverified)] if manifest.unverified else []),
        *((f"chosen for {name}s", _choice(v)) for name, v in _choices(bundle).items()),
        *(fact for variant in manifest.variants for fact in _tolerance(variant)),
        ("made by", f"fmrt {manifest.fmrt_version}, {packages or 'unknown packages'}"),
        *([("converted by", manifest.exporter)] if manifest.exporter else []),
        ("total size", size(total)),
        ("manifest", f"SHA-256 {bundle.manifest_sha256}"),
    ]


def _tolerance(variant: Variant) -> list[tuple[str, str]]:
    own = variant.tolerance
    if own is None:
        return []
    return [
        (
            f"tolerance of {variant.name}",
            f"max abs error {own.max_abs_error:.1e}, mean cosine {own.mean_cosine:.6f}, worst "
            f"cosine {own.min_cosine:.6f}, from what was measured when it was made",
        )
    ]


def _total(bundle: Bundle) -> int:
    """Bytes of all files; of a bundle on the hub, of those that the manifest lists."""
    if bundle.archive is not None:
        return bundle.path.stat().st_size
    if bundle.repository is None:
        return sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
    graphs = bundle.manifest.graphs
    weights = (record.size for v in graphs for record in v.external.values())
    files = (record.size for record in bundle.manifest.files.values())
    return sum(v.size for v in graphs) + sum(weights) + sum(files)


def _tower(tower: Tower) -> list[tuple[str, str]]:
    return [
        ("embeds", f"{tower.modality}s" if tower.modality != "audio" else "audio"),
        *_INPUT_FACTS[tower.modality](tower.input),
        *([("patches", f"{tower.grid[0]} x {tower.grid[1]}, a vector each")] if tower.grid else []),
        ("pooling", tower.pooling),
        ("normalize", "yes" if tower.normalize else "no"),
    ]


def _choices(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """What fmrt tune chose here, by modality, and why it does not hold any more."""
    from fmrt.embedding.choice import load_choice

    found = {name: load_choice(bundle, name) for name in bundle.manifest.modalities}
    return {
        name: dataclasses.asdict(choice) | {"problem": choice.problem(bundle, name)}
        for name, choice in found.items()
        if choice is not None
    }


def _choice(values: dict[str, Any]) -> str:
    what = f"{values['variant']} on {values['provider']}, {values['speed']:.2f} times fp32's speed"
    problem = values["problem"]
    return what if problem is None else f"{what}; not used: {problem}; run fmrt tune again"


def _text(spec: TextInput) -> list[tuple[str, str]]:
    default = spec.default_prompt_name
    prompts = [
        (f"prompt {name}", repr(text) + (" (the default)" if name == default else ""))
        for name, text in spec.prompts.items()
    ]
    if not spec.include_prompt:
        prompts.append(("prompts are", "left out of the pooling"))
    return [("max length", f"{spec.max_length:,} tokens"), *(prompts or [("prompts", "none")])]


def _image(spec: ImageInput) -> list[tuple[str, str]]:
    return [("pixels", f"{spec.height} x {spec.width}")]


def _audio(spec: AudioInput) -> list[tuple[str, str]]:
    seconds = spec.max_samples / spec.sampling_rate
    return [("sampling rate", f"{spec.sampling_rate:,} Hz"), ("max length", f"{seconds:,.1f} s")]


_INPUT_FACTS: dict[str, Callable[[Any], list[tuple[str, str]]]] = {
    "text": _text,
    "image": _image,
    "audio": _audio,
}
