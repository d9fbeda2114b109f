"""Retrieval data: BEIR's corpus.jsonl, queries.jsonl and qrels, or configurations of that form."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmrt.data import BadRecord, columns_of, read_records
from fmrt.errors import DataError
from fmrt.evaluation.dataset import DOCUMENTS, QUERIES, RETRIEVAL, Dataset, Side
from fmrt.evaluation.layout import Config
from fmrt.evaluation.reading import Reading
from fmrt.words import listed, shown

CORPUS, QUERY_FILE, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
_SPLITS = ("test", "dev", "validation", "train")
_QUERY, _DOCUMENT, _SCORE = "query-id", "corpus-id", "score"
_IDS, _TITLE, _TEXT = ("_id", "id"), "title", "text"
# The configurations of such data on the hub. Of the last two, the first that exists counts.
_CORPUS, _QUERIES, _JUDGED = "corpus", "queries", ("qrels", "default")
_TABLES = (".tsv", ".csv", ".jsonl", ".parquet")
# The names that models have for the prompts.
_QUERY_PROMPTS, _DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")


@dataclass(frozen=True)
class Parts:
    """The files of retrieval data.

    Attributes:
        corpus: The file of the documents.
        queries: The file of the queries.
        qrels: The files of judgements, by split.
    """

    corpus: Sequence[Path]
    queries: Sequence[Path]
    qrels: Mapping[str, Sequence[Path]]


def is_retrieval(configs: Collection[str]) -> bool:
    """Whether a repository's configurations are those of retrieval data."""
    return {_CORPUS, _QUERIES} <= {*configs} and bool({*configs} & {*_JUDGED})


def retrieval_parts(root: Path, configs: Mapping[str, Config]) -> Parts | None:
    """The files of a folder in BEIR's layout, or with such configurations; None for another one."""
    if is_retrieval(configs):
        judged = next(configs[name].splits for name in _JUDGED if name in configs)
        corpus, queries = (
            [root / f for own in configs[name].splits.values() for f in own]
            for name in (_CORPUS, _QUERIES)
        )
        return Parts(corpus, queries, {s: [root / f for f in own] for s, own in judged.items()})
    texts = (root / CORPUS).is_file() or (root / QUERY_FILE).is_file()
    if not (texts and (root / QRELS).is_dir()):
        return None
    found = (p for p in sorted((root / QRELS).iterdir()) if p.suffix.lower() in _TABLES)
    return Parts([root / CORPUS], [root / QUERY_FILE], {p.stem: [p] for p in found})


def load_retrieval(source: str, parts: Parts, split: str | None, reading: Reading) -> Dataset:
    """The documents, the judged queries of a split, and what was judged.

    Args:
        source: The name of the data set.
        parts: The files of the data set.
        split: The split whose judgements count; None for the first of test, dev,
            validation and train.
        reading: The object that takes bad records.

    Raises:
        DataError: A file is missing, or holds something that is not valid.
    """
    split = _split(source, parts, split)
    judged = _judged(parts.qrels[split], reading)
    # Of documents with equal scores, the one with the last name is first, as trec_eval has it.
    documents = dict(sorted(_texts(parts.corpus, reading).items(), reverse=True))
    queries = _texts(parts.queries, reading)
    unknown = [name for name in judged if name not in queries]
    asked = [name for name in judged if name in queries]
    if not asked:
        raise DataError(f"{source!r}: no query that was judged in {split!r} is among the queries")
    without = sum(max(judged[name].values()) <= 0 for name in asked)
    if without == len(asked):
        raise DataError(
            f"{source!r}: no query that was judged in {split!r} has a relevant document"
        )
    row = {name: i for i, name in enumerate(documents)}
    of_asked = {document for query in asked for document in judged[query]}
    missing = len(of_asked - row.keys())
    if missing == len(of_asked):
        raise DataError(f"{source!r}: no document that was judged in {split!r} is in the corpus")
    notes = [
        line
        for count, line in (
            (len(unknown), "queries that were judged are not among the queries"),
            (without, "queries have no relevant document, and count as 0"),
            (missing, "documents that were judged are not in the corpus, and count as not found"),
        )
        if count
        for line in (f"{count:,} {line}",)
    ]
    relevant = tuple(
        {row.get(name, -1 - i): gain for i, (name, gain) in enumerate(judged[q].items())}
        for q in asked
    )
    return Dataset(
        source,
        RETRIEVAL,
        {
            DOCUMENTS: _side(documents, _DOCUMENT_PROMPTS, "document"),
            QUERIES: _side({q: queries[q] for q in asked}, _QUERY_PROMPTS, "query"),
        },
        relevant=relevant,
        twins=tuple(row.get(q, -1) for q in asked),
        choices=(f"{source}: judged in {split!r}",),
        notes=tuple(notes),
    )


def _side(texts: dict[str, str], prompts: tuple[str, ...], what: str) -> Side:
    places = [f"{what} {name!r}" for name in texts]
    return Side(list(texts.values()), places, "text", prompts)


def _split(source: str, parts: Parts, split: str | None) -> str:
    for name in (split,) if split is not None else (*_SPLITS, *parts.qrels):
        if name in parts.qrels:
            return str(name)
    there = listed(parts.qrels) if parts.qrels else "none"
    raise DataError(
        f"{source!r} has no judgements of the split {split or 'test'!r}; it has {there}"
    )


def _judged(files: Sequence[Path], reading: Reading) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for file in map(str, files):
        records = read_records(file, column=_QUERY, keep=(_DOCUMENT, _SCORE))
        for record in reading.good(file, records):
            try:
                gain = float(str(record.kept[_SCORE]))
            except ValueError:
                gain = math.nan
            if not math.isfinite(gain):
                problem = f"its score {record.kept[_SCORE]!r} is no finite number"
                reading.bad(file, BadRecord(record.number, problem))
                continue
            query, document = str(record.value), str(record.kept[_DOCUMENT])
            if found.setdefault(query, {}).setdefault(document, gain) != gain:
                problem = f"judges {document!r} for {query!r} once more, with another score"
                reading.bad(file, BadRecord(record.number, problem))
    return found


def _texts(files: Sequence[Path], reading: Reading) -> dict[str, str]:
    """The texts by identity; a document's text comes after its title."""
    found: dict[str, str] = {}
    for file in map(str, files):
        known = columns_of(file)
        name_of = next((name for name in _IDS if name in known), _IDS[0])
        keep = (name_of, *(name for name in (_TITLE,) if name in known))
        for record in reading.good(file, read_records(file, column=_TEXT, keep=keep)):
            name, title = record.kept[name_of], record.kept.get(_TITLE)
            problem = None
            if name in (None, ""):
                problem = f"has no {name_of}"
            elif str(name) in found:
                problem = f"has the {name_of} {name!r} of one before"
            elif not isinstance(title, str | None):
                problem = f"its {_TITLE} is a {type(title).__name__}, not text"
            if problem is not None:
                reading.bad(file, BadRecord(record.number, problem))
                continue
            text = str(record.value)
            found[str(name)] = f"{title} {text}".strip() if title else text
    if not found:
        raise DataError(f"{shown(str(files[0]))} holds no text")
    return found
