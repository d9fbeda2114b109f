"""Caches of vectors after changes of their bytes: the right vectors, or one line."""

from __future__ import annotations

import math
import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fmrt import Embedder
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import ODD_VALUES, mutated_bytes

TEXTS = [" ".join(("cat", "red", "dog")[:n] + ("mat",) * m) for n in range(4) for m in range(6)]


@pytest.fixture(scope="module")
def cache(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the vectors of `TEXTS`."""
    directory = tmp_path_factory.mktemp("cache")
    with Embedder(tiny_bundle, cache=directory, verify=False) as embedder:
        embedder.embed(TEXTS)
    (file,) = directory.glob("*.sqlite")
    return file


@pytest.fixture(scope="module")
def right(tiny_bundle: Path) -> np.ndarray:
    with Embedder(tiny_bundle, verify=False) as embedder:
        return embedder.embed(TEXTS)


def of_bytes(cache: Path, generator: random.Random) -> bytes:
    """Most changes hit the pages; some the header."""
    data = cache.read_bytes()
    start = generator.choice((0, 0, 100, generator.randrange(len(data))))
    return data[:start] + mutated_bytes(generator, data[start:])


def of_rows(cache: Path, generator: random.Random) -> bytes:
    """A database that is whole, with other values in it."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "c.sqlite")
        shutil.copy(cache, file)
        with closing(sqlite3.connect(file)) as database, database:
            for _ in range(generator.randint(1, 5)):
                change_row(generator, database)
        return file.read_bytes()


def change_row(generator: random.Random, database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT rowid, * FROM vectors").fetchall()
    columns = ("key", "vector", "checksum")
    column = generator.choice(columns)
    row, other = generator.choice(rows), generator.choice(rows)
    old = row[1 + columns.index(column)]
    odd = generator.choice([v for v in ODD_VALUES if storable(v)])
    changed = mutated_bytes(generator, old) if isinstance(old, bytes) else odd
    value = generator.choice((odd, changed, changed, other[1 + columns.index(column)]))
    database.execute(f"UPDATE OR REPLACE vectors SET {column} = ? WHERE rowid = ?", (value, row[0]))


def storable(value: object) -> bool:
    if isinstance(value, str):
        return "\ud800" not in value
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return isinstance(value, float) and not math.isnan(value)


def embedded(bundle: Path, name: str, right: np.ndarray, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, name).write_bytes(data)
        for _ in range(2):
            with Embedder(bundle, cache=place, verify=False, workers=1) as embedder:
                np.testing.assert_allclose(embedder.embed(TEXTS), right, atol=1e-6)


@pytest.mark.parametrize("make", [of_bytes, of_rows])
def test_caches(budget: Budget, tiny_bundle: Path, cache: Path, right: np.ndarray, make):
    attack(partial(embedded, tiny_bundle, cache.name, right), partial(make, cache), budget)
