"""Tables of every look: the texts that were written, or one line; never others, never fewer."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmrt.data import BadRecord, Record, read_records
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

PIECES = [
    "alpha",
    "beta",
    " ",
    "  ",
    ",",
    ";",
    "\t",
    "|",
    '"',
    "'",
    "\n",
    "ä",
    "日本",
    "😀",
    "0",
    "a,b",
]
PIECES += ["sep=;", "[", "{", "}", "]", "\\", "\u2028", "\x0b", "text", "#", ""]
ENCODINGS = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"]


@dataclass(frozen=True)
class TableCase:
    """A file, and the texts in it; None of a damaged one, whose texts nobody knows."""

    name: str
    data: bytes
    texts: tuple[str, ...] | None
    options: tuple[tuple[str, object], ...] = ()


def some_table(generator: random.Random) -> TableCase:
    texts = tuple(some_text(generator) for _ in range(generator.randint(1, 300)))
    case = generator.choice((as_csv, as_csv, as_csv, as_json, as_txt, as_parquet))(generator, texts)
    data = case.data
    if case.name != "a.parquet" and generator.random() < 0.2:
        data = gzip.compress(data)
    if generator.random() < 0.2:
        return TableCase(case.name, mutated_bytes(generator, data), None, case.options)
    return TableCase(case.name, data, case.texts, case.options)


def some_text(generator: random.Random) -> str:
    return "".join(generator.choices(PIECES, k=generator.randint(0, 8)))


def as_csv(generator: random.Random, texts: tuple[str, ...]) -> TableCase:
    column = generator.choice(("text", "body", "sentence", "mein Text"))
    width = generator.randint(1, 4)
    place = generator.randrange(width)
    header = [column if i == place else f"c{i}" for i in range(width)]
    rows = [[t if i == place else some_text(generator) for i in range(width)] for t in texts]
    header_too = generator.random() < 0.8
    buffer = io.StringIO(newline="")
    quoting = generator.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL))
    delimiter = generator.choice(",;\t|")
    end = generator.choice(("\n", "\r\n"))
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows] if header_too else rows)
    options: dict[str, object] = {}
    if not header_too:
        options = {"header": False, "column": str(place + 1)}
    elif generator.random() < 0.5:
        options = {"column": column}
    if not header_too or generator.random() < 0.2:
        options["delimiter"] = delimiter
    data = buffer.getvalue().encode(generator.choice(ENCODINGS))
    name = generator.choice(("a.csv", "a.tsv"))
    return TableCase(name, data, texts, tuple(options.items()))


def as_json(generator: random.Random, texts: tuple[str, ...]) -> TableCase:
    nested = generator.random() < 0.3
    values = [{"id": 1, "doc": {"text": t}} if nested else {"text": t, "m": [1, {}]} for t in texts]
    options = (("column", "doc.text"),) if nested else ()
    indent = generator.choice((None, 0, 2))
    ascii_only = generator.random() < 0.5
    if generator.random() < 0.5:
        body = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    else:
        many = (json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values)
        body = generator.choice(("\n", "\n\n", "\r\n")).join(many)
    name = generator.choice(("a.json", "a.jsonl"))
    return TableCase(name, body.encode(generator.choice(ENCODINGS)), texts, options)


def as_txt(generator: random.Random, texts: tuple[str, ...]) -> TableCase:
    lines = tuple(text.replace("\n", " ") for text in texts)
    end = generator.choice(("\n", "\r\n", "\r"))
    body = "".join(line + end for line in lines)
    return TableCase("a.txt", body.encode(generator.choice(ENCODINGS)), lines)


def as_parquet(generator: random.Random, texts: tuple[str, ...]) -> TableCase:
    values = arrow.array(texts)
    convert: Callable[[object], object] = generator.choice(
        (
            lambda v: v,
            lambda v: v.cast(arrow.large_string()),
            lambda v: v.cast(arrow.binary()),
            lambda v: v.dictionary_encode(),
            lambda v: v.cast(arrow.string_view()),
        )
    )
    columns = {"n": arrow.array(range(len(texts))), "text": convert(values)}
    out = io.BytesIO()
    arrow.parquet.write_table(arrow.table(columns), out, row_group_size=generator.randint(1, 300))
    return TableCase("a.parquet", out.getvalue(), texts)


def read(case: TableCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, case.name)
        path.write_bytes(case.data)
        found = list(read_records(str(path), **dict(case.options)))
    assert all(isinstance(one, Record | BadRecord) for one in found)
    if case.texts is None:
        return
    if case.name in ("a.csv", "a.tsv") and any(isinstance(one, BadRecord) for one in found):
        return  # of a single column, commas in a text may be another delimiter's
    assert tuple(one.value for one in found if isinstance(one, Record)) == case.texts


def test_tables(budget: Budget) -> None:
    attack(read, some_table, budget)
