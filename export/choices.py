"""What the user asked of an export, and what was decided, with where it was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Takes lines for the user: what was chosen, and what is being done.
Report = Callable[[str], None]
# Outputs: a vector per item, or a vector per patch of an image.
POOLED, PATCH = "pooled", "patch"


@dataclass(frozen=True)
class Choice:
    """One decision of an export: what it is about, the value, and where that was read."""

    name: str
    value: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.origin})"


@dataclass(frozen=True)
class Overrides:
    """What the user asked for instead of what the model says; None leaves the model's own.

    ``trust_remote_code`` lets Python files of the model's directory run. ``tokenizers`` are
    directories of adapters: one that brings a tokenizer was trained with that.
    """

    pooling: str | None = None
    normalize: bool | None = None
    max_length: int | None = None
    output: str = POOLED
    trust_remote_code: bool = False
    tokenizers: tuple[Path, ...] = ()


def normalize_choice(
    asked: bool | None, default: bool = False, origin: str | None = None
) -> Choice:
    """Whether vectors end in L2 normalization.

    Args:
        asked: The value that the user asked for; None for the default.
        default: What the model does.
        origin: The place where the default was read; None where the model does not say.
    """
    if asked is not None:
        return Choice("normalize", yes_or_no(asked), "asked for")
    unsaid = "the model does not say; --normalize adds it"
    return Choice("normalize", yes_or_no(default), origin or unsaid)


def yes_or_no(value: bool) -> str:
    """A truth value in words."""
    return "yes" if value else "no"
