"""Chooses, by measurement, the variant and the provider that a bundle runs as on this machine.

Candidates are the variants of every provider whose batches the cores compute. Each is checked
against PyTorch's reference vectors before it is timed, and the timed ones take turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Parity
from fmrt.bundle.reference import Reference
from fmrt.embedding.choice import Choice
from fmrt.embedding.engine import Engine
from fmrt.errors import FmrtError, OptionError, VerificationError
from fmrt.measure.calibration import best, compare, runs, that_fit
from fmrt.options import checked
from fmrt.session import CPU, every_provider
from fmrt.verify import check


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A variant on a provider.

    Attributes:
        provider: The provider's name.
        variant: The variant's name; empty where the provider cannot be had.
        precision: The variant's precision; likewise.
        parity: The parity of its vectors with PyTorch's, as measured here; None if it was not
            measured.
        speed: A multiple of the speed of the CPU's own fp32 variant; None if it was refused.
        refused: The reason that it was refused.
    """

    provider: str
    variant: str = ""
    precision: str = ""
    parity: Parity | None = None
    speed: float | None = None
    refused: str | None = None


def choose(
    bundle: Bundle,
    items: Sequence[object],
    modality: str | None = None,
    quality: float | None = None,
) -> tuple[Choice, list[Candidate]]:
    """Check every candidate, and measure those that pass.

    Args:
        bundle: The bundle.
        items: The items to measure with; as many are used as fit into a turn.
        modality: The modality of the tower; default the only one, or that of texts.
        quality: The worst cosine with PyTorch's vectors that a variant of another precision than
            fp32 must reach, over the reference items; None for fp32 alone.

    Returns:
        The fastest, and all candidates, the CPU's own fp32 variant first. That one is chosen unless
        another is faster by more than noise.

    Raises:
        OptionError: There are no items, or the quality is no cosine.
        VerificationError: The CPU's own fp32 variant does not give PyTorch's vectors.
    """
    checked(modality=modality, quality=quality)
    if quality is not None and not 0 < quality <= 1:
        raise OptionError(f"quality={quality!r}; give a cosine above 0, and at most 1")
    if not items:
        raise OptionError("there is nothing to measure with; give a file with items")
    tower = bundle.manifest.tower(modality)
    reference = _reference(bundle, tower.modality)
    with ExitStack() as opened:
        engines: dict[int, Engine] = {}
        found: list[Candidate] = []
        for untried in _candidates(bundle, tower.modality, quality):
            engine, tried = None, untried
            if untried.refused is None:
                engine, tried = _checked(bundle, tower.modality, untried, reference)
            if engine is not None:
                opened.enter_context(closing(engine))
                why = _too_far((found or [tried])[0], tried, quality)
                tried = dataclasses.replace(tried, refused=why)
                if why is None:
                    engines[len(found)] = engine
            found.append(tried)
        if 0 not in engines:
            raise VerificationError(f"{bundle.path}: {found[0].refused}")
        few = that_fit(engines[0], items, engines[0].batch_tokens)
        speeds = compare({i: runs(e, few, e.batch_tokens) for i, e in engines.items()})
    found = [dataclasses.replace(c, speed=speeds.get(i)) for i, c in enumerate(found)]
    return _choice(bundle, tower.modality, found[best(speeds)], quality), found


def _choice(bundle: Bundle, modality: str, fastest: Candidate, quality: float | None) -> Choice:
    variant = bundle.variant(fastest.variant, fastest.provider, modality)
    version = every_provider()[fastest.provider].version()
    speed = fastest.speed or 1.0
    return Choice(fastest.provider, variant.name, variant.sha256, version, speed, quality)


def _reference(bundle: Bundle, modality: str) -> Reference | None:
    try:
        return bundle.reference(modality)
    except VerificationError:  # an adopted bundle may have none
        return None


def _candidates(bundle: Bundle, modality: str, quality: float | None) -> Iterator[Candidate]:
    """Every provider's variants of each precision, the one that runs by default first."""
    variants = [v for v in bundle.manifest.variants if v.modality == modality]
    equal = bundle.variant(None, CPU.name, modality).precision
    providers = {name: p for name, p in every_provider().items() if p.on_host}
    for name in sorted(providers, key=lambda name: name != CPU.name):
        problem = providers[name].problem()
        if problem is not None:
            yield Candidate(name, refused=problem)
            continue
        precisions = {v.precision: None for v in variants if v.provider in ("any", name)}
        for precision in sorted(precisions, key=lambda precision: precision != equal):
            # The one made for the provider: its name may be another than the precision's.
            fits = (v for v in variants if v.provider in ("any", name) and v.precision == precision)
            variant = min(fits, key=lambda v: (v.provider == "any", v.packed)).name
            unequal = precision != equal and quality is None
            why = f"{precision} is not {equal}: --quality admits it" if unequal else None
            yield Candidate(name, variant, precision, refused=why)


def _checked(
    bundle: Bundle, modality: str, candidate: Candidate, reference: Reference | None
) -> tuple[Engine | None, Candidate]:
    """A candidate with its parity, where there is a reference; and loaded, unless it is refused."""
    try:
        engine = Engine(bundle, candidate.variant, candidate.provider, modality)
    except FmrtError as e:
        return None, dataclasses.replace(candidate, refused=str(e))
    if reference is None:
        return engine, candidate
    try:
        report = check(engine, reference)
    except FmrtError as e:
        engine.close()
        return None, dataclasses.replace(candidate, refused=str(e))
    if report.passed:
        return engine, dataclasses.replace(candidate, parity=report.parity)
    engine.close()
    why = report.error or "its vectors are not PyTorch's"
    parity = report.parity if report.error is None else None
    return None, dataclasses.replace(candidate, parity=parity, refused=why)


def _too_far(first: Candidate, candidate: Candidate, quality: float | None) -> str | None:
    """Why a candidate that passed is not good enough for the user; None when it is."""
    if candidate.precision == first.precision:
        return None
    if candidate.parity is None:
        return "the bundle has no reference vectors to check it with"
    worst = candidate.parity.min_cosine
    return None if worst >= (quality or 1) else f"its worst cosine is below {quality}"
