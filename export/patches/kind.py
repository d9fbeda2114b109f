"""What a patch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Functions of transformers' models, as ``model.function`` or ``model.Class.method``, and what makes
# of each the one that takes its place.
Patches = Mapping[str, Callable[[Any], Any]]
