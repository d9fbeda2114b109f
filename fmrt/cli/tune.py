"""``fmrt tune``: the provider, threads, batches and operators that are fastest on a machine."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fmrt.cli._arguments import (
    Subparsers,
    add_max_item_size,
    add_pin,
    add_reading,
    add_variant,
    check_reading_is_used,
    positive,
    reading_of,
    real,
)
from fmrt.cli._say import show
from fmrt.cli._text import table
from fmrt.errors import DataError, OptionError, VerificationError
from fmrt.options import UNNAMED
from fmrt.system.limits import Limits

if TYPE_CHECKING:
    from fmrt.bundle.bundle import Bundle
    from fmrt.bundle.manifest import Variant
    from fmrt.measure import Candidate

_CANDIDATE = ("provider", "variant", "precision", "worst cosine", "speed", "")
_TITLES = {
    "batch_tokens": "most tokens of a batch",
    "form": "operators of attention",
    "threads": "workers x threads in an operator",
    "query_threads": "threads for a single query",
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "tune",
        help="find the fastest provider, threads, batches and operators on this machine",
        description="Measure on this machine's cores, in a minute or two, and leave the result in "
        "the cache directory (FMRT_CACHE, or the platform's), where every later run finds it. It "
        "applies to this graph, this CPU, these cores and this version of ONNX Runtime alone. "
        "With neither --variant nor --provider, compare the fp32 variants of all providers that "
        "compute on the CPU: later runs take the fastest by default. "
        "With --provider cuda, check every form of attention that the bundle has for GPUs against "
        "PyTorch's vectors, and measure those that are right: the result applies to this model of "
        "GPU and this version of ONNX Runtime.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    add_pin(parser)
    add_variant(parser, UNNAMED)
    parser.add_argument(
        "--quality",
        metavar="C",
        type=real,
        help="compare variants of other precisions too, if their worst cosine with PyTorch's "
        "vectors is C or more, as in 0.9999 (default: fp32 alone)",
    )
    parser.add_argument("--modality", metavar="M", help="text, image or audio (default: all)")
    add_items(parser)


def add_items(parser: argparse.ArgumentParser) -> None:
    """Add the file of texts to measure with."""
    parser.add_argument(
        "--texts", metavar="FILE", help="to measure with (default: random words, natural lengths)"
    )
    add_reading(parser)  # type: ignore[arg-type]
    add_max_item_size(parser)  # type: ignore[arg-type]
    parser.add_argument(
        "--items", metavar="N", type=positive, default=1000, help="most items (default: 1000)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print a table a choice, and write the result.

    Raises:
        OptionError: The provider has nothing to choose, or there is a quality beside a provider
            or a variant.
        VerificationError: No form of a variant is right on this GPU.
    """
    from fmrt.bundle.bundle import Bundle
    from fmrt.session import resolve_provider

    if _is_given(args) and args.quality is not None:
        raise OptionError("--quality chooses a variant and a provider: name neither with it")
    target = resolve_provider(args.provider)
    if not target.provider.tuned:
        raise OptionError(
            f"--provider {args.provider!r} has nothing to tune; cpu, openvino and cuda have"
        )
    bundle = Bundle.open(args.bundle, args.sha256, args.revision)
    names = bundle.manifest.modalities if args.modality is None else (args.modality,)
    on = _on_host if target.provider.on_host else _on_device
    for modality in names:
        on(args, bundle, modality)
    return 0


def _is_given(args: argparse.Namespace) -> bool:
    return args.variant is not None or args.provider != UNNAMED


def _on_host(args: argparse.Namespace, bundle: Bundle, modality: str) -> None:
    """A variant on a provider, those that are asked for or the fastest: its threads and batches."""
    from fmrt.embedding.engine import Engine
    from fmrt.embedding.tuning import provider_facts, save_tuning
    from fmrt.measure import tune
    from fmrt.session import resolve_provider

    target, name = resolve_provider(args.provider), args.variant
    engine = Engine(bundle, name, target.spec, modality)
    try:
        items = items_of(args, engine, bundle)
    finally:
        engine.close()
    if not _is_given(args):
        name, provider = _chosen(args, bundle, modality, items)
        target = resolve_provider(provider)
    tuned = tune(bundle, items, name, modality, target.spec)
    _show(args, tuned.measured)
    variant = bundle.variant(name, target.name, modality)
    facts = provider_facts(variant, target.provider)
    file = save_tuning(variant, tuned.tuning, tuned.measured, more=facts)
    best = tuned.tuning
    show(
        args,
        f"best: {best.workers} workers, {best.intra_op_threads} threads in an operator, "
        f"batches of {best.batch_tokens} tokens, {best.query_threads} threads for a query\n"
        f"written to {file}",
    )


def _chosen(
    args: argparse.Namespace, bundle: Bundle, modality: str, items: Sequence[object]
) -> tuple[str, str]:
    """The variant and the provider that are the fastest, which are written down."""
    from fmrt.embedding.choice import save_choice
    from fmrt.measure import choose

    choice, candidates = choose(bundle, items, modality, args.quality)
    show(args, table(_CANDIDATE, map(_row, candidates), {"worst cosine", "speed"}))
    file = save_choice(bundle, modality, choice, [dataclasses.asdict(c) for c in candidates])
    show(
        args,
        f"chosen for {modality}s: {choice.variant} on {choice.provider}; what names no provider "
        f"and no variant takes it from now on\nwritten to {file}\n",
    )
    return choice.variant, choice.provider


def _row(candidate: Candidate) -> tuple[str, ...]:
    parity, speed = candidate.parity, candidate.speed
    return (
        candidate.provider,
        candidate.variant or "-",
        candidate.precision or "-",
        "-" if parity is None else f"{parity.min_cosine:.6f}",
        "-" if speed is None else f"{speed:.2f}",
        f"refused: {candidate.refused}" if candidate.refused else "",
    )


def _on_device(args: argparse.Namespace, bundle: Bundle, modality: str) -> None:
    """Each variant made for the provider, or the one that is asked for."""
    from fmrt.embedding.tuning import save_tuning
    from fmrt.measure import tune_forms
    from fmrt.session import resolve_provider

    target = resolve_provider(args.provider)
    wrong = []
    for variant in _made_for(bundle, target.name, modality, args.variant):
        found = tune_forms(
            bundle, variant, args.provider, lambda engine: items_of(args, engine, bundle)
        )
        show(args, f"{variant.name} on {found.device or args.provider}")
        for form, why in found.refused.items():
            show(args, f"refused {form or variant.name}: {why}")
        if found.tuning is None:
            wrong.append(variant.name)
            continue
        _show(args, found.measured)
        written = "not written, as the driver does not say which GPU this is"
        if found.device is not None:
            saved = save_tuning(variant, found.tuning, found.measured, found.device)
            written = f"written to {saved}"
        best = found.tuning
        what = f"{best.form}, " if best.form else ""
        show(args, f"best: {what}batches of {best.batch_tokens} tokens\n{written}")
    if wrong:
        raise VerificationError(f"{args.bundle}: nothing of {', '.join(wrong)} is right here")


def _made_for(bundle: Bundle, provider: str, modality: str, name: str | None) -> Sequence[Variant]:
    own = [v for v in bundle.manifest.variants if (v.provider, v.modality) == (provider, modality)]
    if name is not None or not own:
        return [bundle.variant(name, provider, modality)]
    return own


def _show(args: argparse.Namespace, measured: Mapping[str, Mapping[str, float]]) -> None:
    for key, title in _TITLES.items():
        rows = [(choice, f"{speed:.2f}") for choice, speed in measured.get(key, {}).items()]
        if rows and any(choice for choice, _ in rows):
            show(args, table((title, "speed"), rows, ("speed",)) + "\n")


def items_of(args: argparse.Namespace, engine: object, bundle: object) -> list[object]:
    """Distinct items of ``--texts``, or made ones.

    Raises:
        DataError: The file has none that can be used.
    """
    from itertools import islice

    from fmrt.data import Record
    from fmrt.measure import sample_items

    check_reading_is_used(args)
    if args.texts is None:
        return sample_items(engine, bundle, args.items)  # type: ignore[arg-type]
    records = reading_of(args).records(args.texts, "text", Limits(args.max_item_size))
    texts = (r.value for r in records if isinstance(r, Record))
    items: list[object] = list(islice(dict.fromkeys(islice(texts, 4 * args.items)), args.items))
    if not items:
        raise DataError(f"{args.texts!r} has no record that can be used")
    return items
