"""Items to measure with, where the user has named none: made from the bundle's reference items."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import NOBODY
from fmrt.embedding.engine import Engine

# Natural-length English, as docstrings and paragraphs have it: half are under 25 words, few over
# 150.
MEDIAN_WORDS, SPREAD = 25.0, 0.9


def sample_items(engine: Engine, bundle: Bundle, count: int) -> list[object]:
    """As many items, the same at every call; texts are random words, each text another.

    Args:
        engine: The engine whose modality is sampled.
        bundle: The bundle with the reference items.
        count: The number of items.
    """
    known = bundle.manifest.reference != NOBODY
    reference = bundle.reference(engine.tower.modality).items if known else []
    if engine.tower.modality != "text":
        return [reference[i % len(reference)] for i in range(count)]
    words = sorted({word for text in reference for word in str(text).split()})
    return list(_texts(words or ["text"], count))


def _texts(words: Sequence[str], count: int) -> list[str]:
    rng = random.Random(0)  # noqa: S311  # no secret
    sizes = [round(rng.lognormvariate(math.log(MEDIAN_WORDS), SPREAD)) for _ in range(count)]
    return [f"{i} " + " ".join(rng.choices(words, k=max(2, size))) for i, size in enumerate(sizes)]
