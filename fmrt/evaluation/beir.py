"""Retrieval data in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/*.tsv."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fmrt.data import BadRecord, Record, read_records
from fmrt.errors import DataError
from fmrt.evaluation.dataset import DOCUMENTS, QUERIES, RETRIEVAL, Dataset, Side
from fmrt.evaluation.reading import Reading
from fmrt.words import shown

CORPUS, QUERY_FILE, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
_SPLITS = ("test", "dev", "validation", "train")
_QUERY, _DOCUMENT, _SCORE = "query-id", "corpus-id", "score"
_ID, _TITLE, _TEXT = "_id", "title", "text"
# Prompts by the names that models have for them.
_QUERY_PROMPTS, _DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")


def is_beir(root: Path) -> bool:
    """Whether a folder is of that layout."""
    return (root / QUERY_FILE).is_file() and (root / QRELS).is_dir()


def load_beir(root: Path, split: str | None, reading: Reading) -> Dataset:
    """The documents, the judged queries of a split, and what was judged.

    Args:
        root: of the data set.
        split: name of a file in ``qrels``; None for the first of test, dev, validation and train.
        reading: takes bad records.

    Raises:
        DataError: a file is missing, or holds what it cannot.
    """
    file = _qrels_file(root, split)
    judged = _judged(file, reading)
    documents = _texts(root / CORPUS, reading)
    queries = _texts(root / QUERY_FILE, reading)
    unknown = [name for name in judged if name not in queries]
    asked = [name for name in judged if name in queries and max(judged[name].values()) > 0]
    if not asked:
        raise DataError(f"{shown(str(file))} has no query of {QUERY_FILE} with a relevant document")
    row = {name: i for i, name in enumerate(documents)}
    missing = len({d for q in asked for d in judged[q] if d not in row})
    notes = [
        line
        for count, line in (
            (len(unknown), f"queries that were judged are not in {QUERY_FILE}"),
            (len(judged) - len(unknown) - len(asked), "queries have no relevant document"),
            (missing, f"documents that were judged are not in {CORPUS}, and count as not found"),
        )
        if count
        for line in (f"{count:,} {line}",)
    ]
    relevant = tuple(
        {row.get(name, -1 - i): gain for i, (name, gain) in enumerate(judged[q].items())}
        for q in asked
    )
    return Dataset(
        str(root),
        RETRIEVAL,
        {
            DOCUMENTS: _side(documents, _DOCUMENT_PROMPTS, CORPUS),
            QUERIES: _side({q: queries[q] for q in asked}, _QUERY_PROMPTS, QUERY_FILE),
        },
        relevant=relevant,
        twins=tuple(row.get(q, -1) for q in asked),
        choices=(f"{root}: judged in {QRELS}/{file.name}",),
        notes=tuple(notes),
    )


def _side(texts: dict[str, str], prompts: tuple[str, ...], file: str) -> Side:
    places = [f"{file} {name!r}" for name in texts]
    return Side(list(texts.values()), places, "text", prompts)


def _qrels_file(root: Path, split: str | None) -> Path:
    found = {path.stem: path for path in sorted((root / QRELS).glob("*.tsv"))}
    for name in (split,) if split is not None else _SPLITS:
        if name in found:
            return found[name]
    names = ", ".join(found) or "none"
    raise DataError(f"{shown(str(root / QRELS))} has no {split or 'test'}.tsv; it has: {names}")


def _judged(file: Path, reading: Reading) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    records = read_records(str(file), column=_QUERY, keep=(_DOCUMENT, _SCORE))
    for record in reading.good(str(file), records):
        try:
            gain = float(str(record.kept[_SCORE]))
        except ValueError:
            gain = math.nan
        if not math.isfinite(gain):
            reading.bad(str(file), BadRecord(record.number, f"score {record.kept[_SCORE]!r}"))
            continue
        found.setdefault(str(record.value), {})[str(record.kept[_DOCUMENT])] = gain
    return found


def _texts(file: Path, reading: Reading) -> dict[str, str]:
    """Texts by identity, a document's after its title."""
    found: dict[str, str] = {}
    for record in reading.good(str(file), _records(file)):
        name, title = record.kept[_ID], record.kept.get(_TITLE)
        if name is None or str(name) in found:
            problem = "has no _id" if name is None else f"has the _id {name!r} of one before"
            reading.bad(str(file), BadRecord(record.number, problem))
            continue
        text = str(record.value)
        text = f"{title} {text}".strip() if title else text
        found[str(name)] = text
    if not found:
        raise DataError(f"{shown(str(file))} holds no text")
    return found


def _records(file: Path) -> Iterator[Record | BadRecord]:
    try:
        return read_records(str(file), column=_TEXT, keep=(_ID, _TITLE))
    except DataError as e:
        if _TITLE not in str(e):
            raise
        return read_records(str(file), column=_TEXT, keep=(_ID,))
