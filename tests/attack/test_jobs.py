"""Jobs after changes of the files in their folder: the right vectors, or one line."""

from __future__ import annotations

import json
import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fmrt.data import read_embeddings, read_provenance
from fmrt.data.index import sealed
from tests.attack.fuzz import Budget, CommandError, attack, command
from tests.attack.mutate import mutated_bytes, mutated_json, mutated_json_text

Files = dict[str, bytes]
TEXTS = "".join(f"cat {'dog ' * (i % 7)}{'red' * (i % 2)}\n" for i in range(21))


def embed(bundle: Path, place: Path, *options: str) -> None:
    shards = ("--shard-rows", "5", "--on-error", "skip", "--no-verify", "--workers", "1")
    output = f"{place}/v/"
    command("embed", str(bundle), str(place / "a.txt"), "-o", output, *shards, *options)


@pytest.fixture(scope="module", params=["npy", "parquet"])
def job(request, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a complete job."""
    place = tmp_path_factory.mktemp("job")
    (place / "a.txt").write_text(TEXTS)
    embed(tiny_bundle, place, "--shard-format", request.param)
    return {path.name: path.read_bytes() for path in (place / "v").iterdir()}


def cut_short(generator: random.Random, job: Files) -> Files:
    """The files of a job that was killed, or is complete."""
    files = dict(job)
    if generator.random() < 0.4:
        return files
    index = json.loads(files.pop("index.json"))
    entries = [{"version": index["version"], "settings": index["settings"]}, *index["shards"]]
    entries = entries[: generator.randint(1, len(entries))]
    files["journal.jsonl"] = b"".join(json.dumps(sealed(e)).encode() + b"\n" for e in entries)
    return files


def make(job: Files, generator: random.Random) -> Files:
    files = cut_short(generator, job)
    for _ in range(generator.randint(1, 2)):
        name = generator.choice([*files, *(n for n in files if n.startswith(("index", "journ")))])
        files[name] = changed(generator, name, files[name])
    if generator.random() < 0.3:
        del files[generator.choice(list(files))]
    if files and generator.random() < 0.1:
        one, other = generator.choice(list(files)), generator.choice(list(files))
        files[one], files[other] = files[other], files[one]
    return files


def changed(generator: random.Random, name: str, data: bytes) -> bytes:
    """Bytes of any file; values of the JSON ones, sealed again or not."""
    if not name.startswith(("index", "journal")) or generator.random() < 0.3:
        return mutated_bytes(generator, data)
    lines = [data] if name.startswith("index") else data.splitlines()
    place = generator.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except ValueError:  # changed before
        return mutated_bytes(generator, data)
    if generator.random() < 0.2 or not isinstance(value, dict):
        lines[place] = mutated_json_text(generator, value)
    else:
        value.pop("seal", None)
        value = mutated_json(generator, value)
        value = sealed(value) if isinstance(value, dict) else value
        lines[place] = json.dumps(value).encode()
    return b"\n".join(lines) + b"\n"


def continued(bundle: Path, job: Files, files: Files) -> None:
    """Whatever is there, the command ends with the right vectors or one line, and so does reading.

    A journal that was sealed again may name other settings that a command keeps; vectors then are
    the same within the model's independence of the batch.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "a.txt").write_text(TEXTS)
        (place / "v").mkdir()
        for file, data in files.items():
            (place / "v" / file).write_bytes(data)
        refused = None
        try:
            embed(bundle, place)
        except CommandError as e:
            refused = e
        if refused is None or "index.json" in files:
            check(place / "v", job)
        if refused is not None:
            embed(bundle, place, "--overwrite")
            check(place / "v", job)
            raise refused


def check(folder: Path, job: Files) -> None:
    """Vectors that are read are right, whether or not the command went on from there."""
    from fmrt.errors import DataError

    with tempfile.TemporaryDirectory() as place:
        for file, data in job.items():
            Path(place, file).write_bytes(data)
        right = read_embeddings(place)[0]
    try:
        found, _ = read_embeddings(str(folder))
        read_provenance(str(folder))
    except DataError:
        return
    np.testing.assert_allclose(found, right, atol=1e-6)


def test_jobs(budget: Budget, tiny_bundle: Path, job: Files):
    attack(partial(continued, tiny_bundle, job), partial(make, job), budget)


def provenance(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        np.save(Path(place, "v.npy"), np.zeros((2, 3), np.float32))
        Path(place, "v.npy.json").write_bytes(data)
        found = read_provenance(f"{place}/v.npy")
        assert found is None or isinstance(found["space"], str)


def sidecar(generator: random.Random) -> bytes:
    value = {"shape": [2, 3], "dtype": "float32", "space": "0", "model": "m", "modality": "text"}
    value |= {"precision": "float32", "truncate_dim": None, "scale": 0.5, "prompt": "a"}
    return mutated_json_text(generator, value)


def test_sidecars(budget: Budget):
    attack(provenance, sidecar, budget)
