"""Texts of any characters: the vector that each has alone, or one line."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np

from fmrt import Embedder
from tests.attack.fuzz import Budget, attack

PIECES = (
    "cat",
    "the red dog",
    " ",
    "\n",
    "\0",
    "\ud800",
    "e\u0301",
    "😀",
    "\u202e",
    "日本",
    "\ufeff",
)


def make(generator: random.Random) -> list[str]:
    return [text(generator) for _ in range(generator.randint(1, 8))]


def text(generator: random.Random) -> str:
    if generator.random() < 0.3:
        return "".join(chr(generator.randrange(0x110000)) for _ in range(generator.randint(0, 30)))
    pieces = generator.choices(PIECES, (20, 20, 9, 3, 0.2, 0.2, 3, 3, 3, 3, 3), k=9)
    return "".join(pieces) * generator.choice((1, 1, 1, 1000))


def embedded(bundle: Path, texts: list[str]) -> None:
    with Embedder(bundle, verify=False, workers=1, intra_op_threads=1) as embedder:
        together = embedder.embed(texts, on_too_long="truncate")
        alone = [embedder.embed([one], on_too_long="truncate")[0] for one in texts]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_texts(budget: Budget, tiny_bundle: Path):
    attack(partial(embedded, tiny_bundle), make, budget)
