"""Bundles in one file, changed in bytes, records and members: the folder's vectors, or one line."""

from __future__ import annotations

import random
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.system.archive import archive_at, pack, unpack
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes

TEXTS = ["the red cat", "dog"]
RECORDS = (b"PK\1\2", b"PK\3\4", b"PK\5\6")
NAMES = (
    "../x",
    "/etc/x",
    "a/../../x",
    "a\\x",
    "C:x",
    "fmrt.json",
    "FMRT.JSON",
    "",
    "a/",
    "é",
    "x" * 9,
)


@dataclass(frozen=True)
class Changed:
    """An archive."""

    data: bytes


def some_archive(original: bytes, generator: random.Random) -> Changed:
    kind = generator.random()
    if kind < 0.2:
        return Changed(mutated_bytes(generator, original))
    if kind < 0.5:
        return Changed(rewritten(generator, original))
    data = bytearray(original)
    for _ in range(generator.randint(1, 3)):
        places = [i for record in RECORDS for i in found(data, record)]
        place = generator.choice(places) + generator.randrange(46)
        size = generator.choice((1, 2, 4))
        value = generator.choice((0, 1, 8, 0xFF, 0xFFFF, 0xFFFFFFFF, generator.randrange(1 << 31)))
        data[place : place + size] = struct.pack("<Q", value)[:size]
    return Changed(bytes(data))


def found(data: bytes | bytearray, record: bytes) -> list[int]:
    places, place = [], data.find(record)
    while place >= 0:
        places.append(place)
        place = data.find(record, place + 1)
    return places


def rewritten(generator: random.Random, original: bytes) -> bytes:
    """By zipfile: other names, members twice, packed, of zeros, in another order."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(original)) as old, zipfile.ZipFile(out, "w") as new:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
        for name, content in generator.sample(members, len(members)):
            way = generator.random()
            own = generator.choice(NAMES) if way < 0.1 else name
            packed = zipfile.ZIP_DEFLATED if way > 0.95 else zipfile.ZIP_STORED
            data = mutated_bytes(generator, content) if 0.1 < way < 0.2 else content
            for _ in range(2 if 0.2 < way < 0.25 else 1):
                new.writestr(zipfile.ZipInfo(own), data, packed)
        if generator.random() < 0.1:
            new.writestr("more.bin", bytes(1 << 24), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def used(want: np.ndarray, case: Changed) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.fmrt")
        path.write_bytes(case.data)
        archive = archive_at(path)
        assert archive is not None
        try:
            unpack(archive, Path(folder, "inner", "out"))
        finally:
            assert {entry.name for entry in Path(folder).iterdir()} <= {"a.fmrt", "inner"}
        with fmrt.Embedder(path) as embedder:
            assert np.abs(embedder.embed(TEXTS) - want).max() <= 1e-6


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives(budget: Budget, tiny_bundle: Path, tmp_path: Path) -> None:
    pack(tiny_bundle, tmp_path / "a.fmrt")
    original = (tmp_path / "a.fmrt").read_bytes()
    with fmrt.Embedder(tiny_bundle) as embedder:
        want = embedder.embed(TEXTS)
    attack(partial(used, want), partial(some_archive, original), budget)
