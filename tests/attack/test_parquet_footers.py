"""Footers of parquet files of every look: the values that were written, or one line."""

from __future__ import annotations

import io
import random
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmrt.data import Record, read_embeddings, read_records
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
encryption = pytest.importorskip("pyarrow.parquet.encryption")

ROWS, DIM, KEY = 60, 4, b"0123456789abcdef"
MAGIC = b"PAR1"


class Keys(encryption.KmsClient):
    """Keeps the keys of columns as they are."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return key

    def unwrap_key(self, wrapped: bytes, _: str) -> bytes:
        return wrapped


@dataclass(frozen=True)
class Footer:
    """A file, whether its vectors are read or its texts, and whether its footer was changed."""

    data: bytes
    vectors: bool
    damaged: bool = True


def columns() -> dict[str, Any]:
    """One column of each type that has more to say in a footer than others."""
    numbers = range(ROWS)
    texts = arrow.array([f"text {n}" for n in numbers])
    vectors = arrow.array(np.arange(ROWS * DIM, dtype=np.float32))
    return {
        "text": texts,
        "embedding": arrow.FixedSizeListArray.from_arrays(vectors, DIM),
        "null": arrow.nulls(ROWS),
        "decimal": arrow.array(numbers).cast(arrow.decimal128(30, 2)),
        "time": arrow.array(numbers, arrow.timestamp("us", "Europe/Berlin")),
        "half": arrow.array(np.arange(ROWS, dtype=np.float16)),
        "uuid": arrow.array([bytes([n]) * 16 for n in numbers], arrow.binary(16)).cast(
            arrow.uuid()
        ),
        "struct": arrow.StructArray.from_arrays([texts, texts.dictionary_encode()], ["a", "b"]),
        "map": arrow.array([{"k": n} for n in numbers], arrow.map_(arrow.string(), arrow.int64())),
        "lists": arrow.array([[[n], []] for n in numbers]),
    }


def ways() -> list[dict[str, Any]]:
    """Options of writing a file, in which footers differ."""
    return [{**way, "row_group_size": size} for size in (25, ROWS) for way in own_ways()]


def own_ways() -> list[dict[str, Any]]:
    return [
        {},
        {"write_page_index": True},
        {"data_page_version": "2.0", "use_dictionary": False, "compression": "zstd"},
        {"version": "1.0", "write_statistics": False, "store_schema": False},
        {"sorting_columns": [arrow.parquet.SortingColumn(0)]},
        {"encryption_properties": encrypted()},
    ]


def encrypted() -> Any:
    """One column by a key of its own, the footer in plain."""
    config = encryption.EncryptionConfiguration(
        footer_key="own", column_keys={"own": ["half"]}, plaintext_footer=True
    )
    factory = encryption.CryptoFactory(Keys)
    connection = encryption.KmsConnectionConfig()
    return factory.file_encryption_properties(connection, config)


@cache
def written() -> list[bytes]:
    found = []
    for way in ways():
        out = io.BytesIO()
        arrow.parquet.write_table(arrow.table(columns()), out, **way)
        found.append(out.getvalue())
    return found


def some_footer(generator: random.Random) -> Footer:
    data, vectors = generator.choice(written()), generator.random() < 0.5
    if generator.random() < 0.02:
        return Footer(data, vectors, damaged=False)
    size = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - size], mutated_bytes(generator, data[-8 - size : -8])
    stated = (
        len(footer) if generator.random() < 0.98 else generator.choice((0, 7, 2**31, 2**32 - 1))
    )
    return Footer(body + footer + stated.to_bytes(4, "little") + MAGIC, vectors)


def read(case: Footer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        path.write_bytes(case.data)
        found = (of_vectors if case.vectors else of_texts)(str(path))
    assert case.damaged or found == [f"text {n}" for n in range(ROWS)]


def of_texts(path: str) -> list[object]:
    records = read_records(path, column="text", keep=["struct", "lists", "map", "time"])
    return [record.value for record in records if isinstance(record, Record)]


def of_vectors(path: str) -> list[object]:
    vectors, kept = read_embeddings(path, columns=["text", "decimal"])
    assert vectors.ndim == 2
    return kept.get("text", [])


def test_footers(budget: Budget) -> None:
    attack(read, some_footer, budget)
