"""Data sets of every look: a report with numbers and a map, or one line."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import fmrt
from tests.attack.fuzz import Budget, attack, command
from tests.attack.mutate import ODD_VALUES, mutated_bytes, mutated_json

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")
datasets = pytest.importorskip("datasets")

# The libraries take longer to load than a quick run has.
pytestmark = pytest.mark.slow

WORDS = ("cat", "dog", "road", "on", "the", "red", "blue", "mat", "ran")
LABELS = (
    "a",
    "b",
    "c",
    "",
    " ",
    "NaN",
    "nan",
    "0",
    "1",
    "-1",
    "1.0",
    "1e400",
    "a,b",
    "ä",
    "\0",
    "None",
)


@dataclass(frozen=True)
class Data:
    """A folder, or the file ``data.*`` in it alone; whether it is drawn, not measured."""

    files: Mapping[str, bytes]
    alone: str | None
    drawn: bool


def text(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(0, 6)))


def labels(generator: random.Random, n: int) -> list[str]:
    own = generator.sample(LABELS, generator.randint(1, 4))
    return generator.choices(own, k=n)


def as_csv(generator: random.Random) -> Data:
    n = generator.choice((0, 1, 2, 5, 30))
    out = io.StringIO()
    header = generator.choice(
        ("text,label", "sentence1,sentence2,score", "text,labels", "a,b", "label")
    )
    writer = csv.writer(out)
    writer.writerow(header.split(","))
    for label in labels(generator, n):
        row = [text(generator) for _ in header.split(",")]
        writer.writerow([*row[:-1], label])
    return Data({"data.csv": out.getvalue().encode()}, "data.csv", generator.random() < 0.3)


def as_jsonl(generator: random.Random) -> Data:
    n = generator.choice((1, 2, 5, 30))
    rows = [{"text": text(generator), "label": label} for label in labels(generator, n)]
    for row in rows:
        if generator.random() < 0.1:
            row[generator.choice(("text", "label"))] = generator.choice(ODD_VALUES)
    data = "\n".join(json.dumps(row) for row in rows).encode()
    return Data({"data.jsonl": data}, "data.jsonl", generator.random() < 0.3)


def as_beir(generator: random.Random) -> Data:
    documents = [{"_id": f"d{i}", "title": "", "text": text(generator)} for i in range(20)]
    queries = [{"_id": f"q{i}", "text": text(generator)} for i in range(8)]
    qrels = [["query-id", "corpus-id", "score"]]
    qrels += [[f"q{i}", f"d{generator.randrange(20)}", "1"] for i in range(8)]
    for rows in (documents, queries, qrels):
        if generator.random() < 0.5:
            rows[:] = [
                mutated_json(generator, row, 1) if generator.random() < 0.2 else row for row in rows
            ]
    files = {
        "corpus.jsonl": b"\n".join(json.dumps(row).encode() for row in documents),
        "queries.jsonl": b"\n".join(json.dumps(row).encode() for row in queries),
        "qrels/test.tsv": "\n".join(
            "\t".join(map(str, row)) if isinstance(row, list) else str(row) for row in qrels
        ).encode("utf-8", "surrogatepass"),
    }
    if generator.random() < 0.2:
        files.pop(generator.choice(sorted(files)))
    return Data(files, None, generator.random() < 0.3)


def as_arrow(original: Mapping[str, bytes], generator: random.Random) -> Data:
    files = dict(original)
    name = generator.choice(sorted(files))
    if name.endswith(".json") and generator.random() < 0.7:
        files[name] = json.dumps(mutated_json(generator, json.loads(files[name]))).encode()
    else:
        files[name] = mutated_bytes(generator, files[name])
    return Data(files, None, generator.random() < 0.3)


def some_data(saved: Mapping[str, bytes], generator: random.Random) -> Data:
    makers: list[Callable[[random.Random], Data]] = [as_csv, as_jsonl, as_beir]
    data = generator.choice([*makers, partial(as_arrow, saved)])(generator)
    if generator.random() < 0.2 and data.files:
        name = generator.choice(sorted(data.files))
        return Data(
            {**data.files, name: mutated_bytes(generator, data.files[name])}, data.alone, data.drawn
        )
    return data


def used(bundle: Path, case: Data) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = Path(folder, "data")
        for name, content in case.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        data = place / case.alone if case.alone else place
        if case.drawn:
            command("map", str(bundle), str(data), "-o", str(Path(folder, "m.html")), "-q")
            return
        report = fmrt.evaluate(bundle, data, resamples=5)
        values = [m.value for model in report.models for t in model.tasks for m in t.measures]
        assert values
        # None: it cannot be measured, as the alignment of classes of one item each.
        assert all(value is None or math.isfinite(value) for value in values), values


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("saved") / "data"
    generator = random.Random(0)
    rows = {"text": [text(generator) for _ in range(30)], "label": [i % 3 for i in range(30)]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(place))
    return {
        f.relative_to(place).as_posix(): f.read_bytes() for f in place.rglob("*") if f.is_file()
    }


def test_data_sets(budget: Budget, tiny_bundle: Path, saved: dict[str, bytes]) -> None:
    attack(partial(used, tiny_bundle), partial(some_data, saved), budget)
