"""Small tables and texts that hold, or state, large values: none under 1 MB takes 300 MB."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fmrt.data import read_embeddings, read_records
from fmrt.errors import FmrtError
from fmrt.preprocess.text import TextPreprocessor
from tests.attack.fuzz import REFUSED, RIGHT, Budget, Victim, attack, command
from tests.attack.mutate import mutated_bytes
from tests.runtime.conftest import make_tokenizer

MOST_GROWTH = 300_000_000
MILLION = 1_000_000
File = tuple[str, bytes]


def embed(bundle: Path, folder: Path, file: File, output: str = "v.npy", keep: str = "") -> None:
    name, data = file
    (folder / name).write_bytes(data)
    options = ("--overwrite", "--on-error", "skip", "--no-verify")
    more = ("--keep", keep) if keep else ()
    try:
        command(
            "embed", str(bundle), str(folder / name), "-o", f"{folder}/{output}", *options, *more
        )
    except AssertionError as e:  # what was skipped is listed before the error
        raise FmrtError(str(e).splitlines()[0]) from None


def read(folder: Path, file: File) -> None:
    name, data = file
    (folder / name).write_bytes(data)
    for record in read_records(str(folder / name)):
        assert record.number


def search(folder: Path, file: File) -> None:
    name, data = file
    (folder / name).write_bytes(data)
    read_embeddings(str(folder / name), columns=["text"])


def packed(name: str, parts: Iterator[bytes] | list[bytes]) -> File:
    out = io.BytesIO()
    with gzip.open(out, "wb") as file:
        for part in parts:
            file.write(part)
    return name, out.getvalue()


LINES: dict[str, Callable[[], File]] = {
    "one line": lambda: packed("a.txt.gz", (b"a" * MILLION for _ in range(400))),
    "lines of four bytes a character": lambda: packed(
        "a.txt.gz", ("😀".encode() + b"ab cd " * 1_600_000 + b"\n" for _ in range(12))
    ),
    "a field without an end": lambda: packed("a.csv.gz", [b'text,b\n"', *[b"a" * MILLION] * 100]),
    "fields": lambda: packed("a.csv.gz", [b"text,b\n", *[b"ab," * 4_000_000 + b"\n"] * 4]),
    "a header of fields": lambda: packed("a.csv.gz", [b"ab," * 4_000_000 + b"\n"]),
    "objects": lambda: packed(
        "a.jsonl.gz", [b'{"text": "a", "x": [' + b"{}," * 3_000_000 + b"1]}\n"] * 8
    ),
    "hundreds of objects": lambda: packed(
        "a.jsonl.gz", [b'{"text": "a", "x": [' + b"[]," * 300_000 + b"1]}\n"] * 16
    ),
    "an array": lambda: packed("a.json.gz", [b"[", *[b"[]," * 4_000_000] * 4, b"1]"]),
    "an array in an array": lambda: packed("a.jsonl.gz", [b"[" * MILLION for _ in range(9)]),
}


SLOW = ("hundreds of objects",)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in LINES]
)
def test_packed_lines(kind: str, tiny_bundle: Path, tmp_path: Path):
    file = LINES[kind]()
    assert len(file[1]) < MILLION
    with Victim(partial(embed, tiny_bundle, tmp_path), 60, MOST_GROWTH) as victim:
        found = victim.run(file)
    assert found.kind in (RIGHT, REFUSED), found


CELLS = {
    "texts": b'"%s"' % (b"ab " * (MILLION // 3)),
    "lists": b'[%s""]' % (b'"abc",' * 15_000),
}


@pytest.mark.parametrize(
    ("cells", "output"),
    [
        ("texts", "v.parquet"),
        ("texts", "v/"),
        pytest.param("lists", "v.parquet", marks=pytest.mark.slow),
    ],
)
def test_columns_that_are_kept(cells: str, output: str, tiny_bundle: Path, tmp_path: Path):
    pytest.importorskip("pyarrow")
    row = b'{"text": "a cat", "big": %s}\n' % CELLS[cells]
    file = packed("a.jsonl.gz", [row] * 400)
    target = partial(embed, tiny_bundle, tmp_path, output=output, keep="big")
    with Victim(target, 60, MOST_GROWTH) as victim:
        found = victim.run(file)
    assert found.kind == RIGHT, found


def parquet(values: object, name: str = "text", **options: object) -> File:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(arrow.table({name: values}), out, compression="zstd", **options)
    return "a.parquet", out.getvalue()


def one_text_in_many_rows() -> File:
    arrow = pytest.importorskip("pyarrow")
    places = arrow.array(np.zeros(1024, np.int32))
    return parquet(arrow.DictionaryArray.from_arrays(places, ["ab " * (MILLION // 3)]))


def one_long_text() -> File:
    return parquet(["ab " * 20 * MILLION], use_dictionary=False)


def long_texts() -> File:
    return parquet(["ab " * 3 * MILLION] * 20, use_dictionary=False, data_page_size=1)


def many_numbers() -> File:
    arrow = pytest.importorskip("pyarrow")
    zeros = arrow.array(np.zeros(60 * MILLION, np.float32))
    return parquet(arrow.FixedSizeListArray.from_arrays(zeros, 100), "embedding")


@pytest.mark.parametrize("make", [one_text_in_many_rows, one_long_text, long_texts])
def test_pages_of_parquet(make: Callable[[], File], tiny_bundle: Path, tmp_path: Path):
    file = make()
    assert len(file[1]) < MILLION
    with Victim(partial(embed, tiny_bundle, tmp_path), 60, MOST_GROWTH) as victim:
        victim.run(parquet(["a"]))  # imports
        found = victim.run(file)
    assert found.kind in (RIGHT, REFUSED), found


@pytest.mark.parametrize("make", [one_text_in_many_rows, many_numbers])
def test_stored_vectors(make: Callable[[], File], tmp_path: Path):
    with Victim(partial(search, tmp_path), 20, MOST_GROWTH) as victim:
        victim.run(parquet(["a"]))
        found = victim.run(make())
    assert found.kind == REFUSED, found


def tokenize(file: Path, text: str) -> None:
    from fmrt.bundle.manifest import TextInput

    TextPreprocessor(file, TextInput(16, 0)).encode([text] * 40)


def test_forty_lines_of_chinese(tmp_path: Path):
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with Victim(partial(tokenize, tmp_path / "tokenizer.json"), 120, MOST_GROWTH) as victim:
        found = victim.run("中文字" * 50_000)
    assert found.kind == RIGHT, found


def some_table(generator: random.Random) -> File:
    size = generator.choice((1, 30, 10_000, 3_000_000))
    units = (b"ab ", b'"', b'""', b"[", b"{}", b",", b"\0", "中".encode())
    unit = generator.choice(units) + b"\n" * (size < MILLION and generator.random() < 0.2)
    rows = generator.choice((1, 20))
    value = unit * size
    kind = generator.choice(("txt", "csv", "tsv", "jsonl", "json", "parquet"))
    if kind == "parquet":
        text = value.decode(errors="replace")
        options = {"use_dictionary": generator.random() < 0.5, "data_page_size": 1}
        name, data = parquet([text] * rows, **options)
        return name, mutated_bytes(generator, data) if generator.random() < 0.5 else data
    start, end = {
        "txt": (b"", b"\n"),
        "csv": (b'a,"', b'"\n'),
        "tsv": (b"a\t", b"\n"),
        "jsonl": (b'{"text": "a", "b": [', b"]}\n"),
        "json": (b"[", b"]\n"),
    }[kind]
    return packed(f"a.{kind}.gz", [b"a,text\n" * (kind == "csv"), *[start + value + end] * rows])


def test_tables(budget: Budget, tmp_path: Path):
    attack(partial(read, tmp_path), some_table, budget, most_seconds=60, most_growth=MOST_GROWTH)
