"""Which variant on which provider a model runs as by default: what ``fmrt tune`` chose here.

A choice is a JSON file beside the measurements of `fmrt.embedding.tuning`, for this machine and
this bundle's fp32 graph. Without one, and wherever a user names a variant or a provider, it does
not count.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Variant
from fmrt.embedding.tuning import tuning_file
from fmrt.errors import ProviderError, ProviderWarning, VariantNotFoundError
from fmrt.options import UNNAMED
from fmrt.session import CPU, resolve_provider
from fmrt.system.user_warning import warn_user
from fmrt.system.whole_file import write_whole


@dataclasses.dataclass(frozen=True)
class Choice:
    """A variant and a provider that were the fastest of those that a user allowed.

    Attributes:
        provider: The provider's name.
        variant: The variant's name.
        sha256: The hash of its graph.
        version: The version of the provider's software.
        speed: Its speed, as a multiple of the CPU's own fp32 variant's.
        quality: The least cosine that the user allowed; None for fp32 alone.
    """

    provider: str
    variant: str
    sha256: str
    version: str
    speed: float
    quality: float | None

    def problem(self, bundle: Bundle, modality: str) -> str | None:
        """Why the choice does not hold any more; None when it does."""
        try:
            target = resolve_provider(self.provider)
            variant = bundle.variant(self.variant, target.name, modality)
        except (ProviderError, VariantNotFoundError) as e:
            return str(e)
        if variant.sha256 != self.sha256:
            return f"variant {self.variant!r} is another graph than the measured one"
        version = target.provider.version()
        if version != self.version:
            return f"provider {self.provider!r} was {self.version} then, and is {version} now"
        return None


def save_choice(bundle: Bundle, modality: str, choice: Choice, candidates: list[Any]) -> Path:
    """Write a choice, all of it or nothing; returns the file.

    Args:
        bundle: The bundle that was measured.
        modality: The modality of the tower.
        choice: The best.
        candidates: What it was chosen from, for people.
    """
    file = _file(bundle.variant(None, CPU.name, modality))
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"choice": dataclasses.asdict(choice), "candidates": candidates}
    write_whole(file, (json.dumps(content, indent=2) + "\n").encode())
    return file


def load_choice(bundle: Bundle, modality: str) -> Choice | None:
    """What was chosen on this machine; None where nothing was, or the file is unreadable."""
    try:
        file = _file(bundle.variant(None, CPU.name, modality))
        values = json.loads(file.read_text(encoding="utf-8"))["choice"]
        names = {"provider": str, "variant": str, "sha256": str, "version": str}
        texts = {name: kind(values[name]) for name, kind in names.items()}
        quality = values["quality"]
        return Choice(
            **texts,
            speed=float(values["speed"]),
            quality=None if quality is None else float(quality),
        )
    except (OSError, ValueError, KeyError, TypeError, VariantNotFoundError):
        return None  # a cache: what cannot be read is as if it were not there


def chosen(
    bundle: Bundle, variant: str | None, provider: str, modality: str | None
) -> tuple[str | None, str]:
    """The variant and the provider to load: the user's, else the choice, else the CPU's own.

    Args:
        bundle: The bundle that is to be loaded.
        variant: The user's variant, or None.
        provider: The user's provider, or `UNNAMED`.
        modality: The modality of the tower; None for the only one, or that of texts.
    """
    if provider != UNNAMED or variant is not None:
        return variant, CPU.name if provider == UNNAMED else provider
    modality = bundle.manifest.tower(modality).modality
    choice = load_choice(bundle, modality)
    if choice is None:
        return None, CPU.name
    problem = choice.problem(bundle, modality)
    if problem is None:
        return choice.variant, choice.provider
    warn_user(
        f"{bundle.path}: what fmrt tune chose, {choice.variant} on {choice.provider}, is not used: "
        f"{problem}; run fmrt tune again",
        ProviderWarning,
    )
    return None, CPU.name


def _file(variant: Variant) -> Path:
    return tuning_file(variant, more=("choice",))
