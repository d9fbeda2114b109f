"""Bundles from strangers: each file mutated, its hash made right. A right result, or one line."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")

from tests.attack import bundles
from tests.attack.bundles import ITEMS, MANIFEST
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes, mutated_json, mutated_json_text

REFERENCE, TOKENIZER, FEATURES = "reference.safetensors", "tokenizer.json", "features.safetensors"
# A case: kind of the bundle, name of the file, its new content.
Case = tuple[str, str, bytes]
Originals = Mapping[str, Mapping[str, bytes]]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return bundles.make_all(tmp_path_factory.mktemp("attacked"))


@pytest.fixture(scope="module")
def originals(places: dict[str, Path]) -> Originals:
    return {
        kind: {
            file.relative_to(place).as_posix(): file.read_bytes()
            for file in place.rglob("*")
            if file.is_file()
        }
        for kind, place in places.items()
    }


@pytest.fixture
def target(places: dict[str, Path], originals: Originals, tmp_path: Path) -> Callable[[Case], None]:
    want = {kind: bundles.results(kind, place) for kind, place in places.items()}
    for kind, place in places.items():
        shutil.copytree(place, tmp_path / kind)
    return partial(used, tmp_path, originals, want)


def used(places: Path, originals: Originals, want: dict[str, list[np.ndarray]], case: Case) -> None:
    """Put a changed file into a bundle, its hash into the manifest, and use the bundle."""
    kind, name, content = case
    files = {**originals[kind], name: content}
    if name != MANIFEST:
        files[MANIFEST] = with_hash(files[MANIFEST], name, content)
    for file, data in files.items():
        (places / kind / file).write_bytes(data)
    # What is in a tokenizer or a graph is the model: whoever writes the hashes may write another.
    bundles.use(places / kind, kind, want[kind], same=name in (MANIFEST, REFERENCE))


def with_hash(manifest: bytes, name: str, content: bytes) -> bytes:
    raw = json.loads(manifest)
    own = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    graphs = [*raw["variants"], *(v for head in raw["heads"] for v in head["variants"])]
    for record in graphs:
        if record["file"] == name:
            record.update(own)
    if name in raw["files"]:
        raw["files"][name] = own
    return json.dumps(raw).encode()


def manifests(originals: Originals, generator: random.Random) -> Case:
    kind = generator.choice(list(ITEMS))
    return kind, MANIFEST, mutated_json_text(generator, json.loads(originals[kind][MANIFEST]))


def test_manifest(budget: Budget, target, originals) -> None:
    attack(target, partial(manifests, originals), budget)


def references(originals: Originals, generator: random.Random) -> Case:
    kind = generator.choice(list(ITEMS))
    return kind, REFERENCE, safetensors(generator, originals[kind][REFERENCE])


def safetensors(generator: random.Random, data: bytes) -> bytes:
    """Bytes of the file changed, or its header, or the JSON in the header's metadata."""
    if generator.random() < 0.3:
        return mutated_bytes(generator, data)
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header.get("__metadata__", {})
    if metadata and generator.random() < 0.5:
        key = generator.choice(list(metadata))
        metadata[key] = mutated_json_text(generator, json.loads(metadata[key])).decode("latin-1")
    else:
        header = mutated_json(generator, header)
    if generator.random() < 0.1:
        body = mutated_bytes(generator, body)
    text = json.dumps(header).encode()
    stated = len(text) if generator.random() < 0.95 else generator.choice((0, 7, 2**40, 2**63))
    return stated.to_bytes(8, "little") + text + body


def test_reference(budget: Budget, target, originals) -> None:
    attack(target, partial(references, originals), budget)


def tokenizers(originals: Originals, generator: random.Random) -> Case:
    kind = generator.choice(("text", "towers"))
    text = mutated_json_text(generator, json.loads(originals[kind][TOKENIZER]))
    return kind, TOKENIZER, text


def test_tokenizer(budget: Budget, target, originals) -> None:
    attack(target, partial(tokenizers, originals), budget)


def features(originals: Originals, generator: random.Random) -> Case:
    return "spectrogram", FEATURES, safetensors(generator, originals["spectrogram"][FEATURES])


def test_features(budget: Budget, target, originals) -> None:
    attack(target, partial(features, originals), budget)


def graphs(originals: Originals, generator: random.Random) -> Case:
    kind = generator.choice(list(ITEMS))
    name = generator.choice([name for name in originals[kind] if name.endswith(".onnx")])
    return kind, name, mutated_bytes(generator, originals[kind][name])


def test_graph(budget: Budget, target, originals) -> None:
    attack(target, partial(graphs, originals), budget)
