"""The problems of a data set that change a result, one line per problem."""

from __future__ import annotations

import numpy as np

from fmrt.evaluation.dataset import (
    DOCUMENTS,
    FIRST,
    ITEMS,
    LABELLED,
    PAIRS,
    QUERIES,
    RETRIEVAL,
    SECOND,
    Dataset,
    Side,
)

_MOST_SHOWN = 3


def notes_on(data: Dataset) -> list[str]:
    """Lines about equal items, leakage, contradicting labels, and classes that are alone."""
    if data.kind == PAIRS:
        return _equal_pairs(data)
    if data.kind == RETRIEVAL:
        return [line for name in (DOCUMENTS, QUERIES) for line in _equal(data.sides[name], name)]
    if data.kind != LABELLED:
        return []
    first = data.sides[ITEMS].first_of_equals
    again = np.flatnonzero(first != np.arange(len(first)))
    found = []
    if len(again):
        found.append(f"{len(again):,} items are equal to one before: {_pairs(data, first, again)}")
    if data.split is not None:
        found += _leaks(data, first)
    if data.labels is not None:
        found += _classes(data, first, again)
    return found


def _equal(side: Side, name: str) -> list[str]:
    first = side.first_of_equals.tolist()
    again = [i for i, one in enumerate(first) if i != one]
    shown = _listed([f"{side.places[i]} = {side.places[first[i]]}" for i in again], quote=False)
    return [f"{len(again):,} {name} are equal to one before: {shown}"] if again else []


def _equal_pairs(data: Dataset) -> list[str]:
    """Lines about pairs that occur again, and about those of them with another score."""
    sides = [data.sides[name].first_of_equals.tolist() for name in (FIRST, SECOND)]
    seen: dict[tuple[int, int], int] = {}
    first = [seen.setdefault(pair, i) for i, pair in enumerate(zip(*sides, strict=True))]
    again = [i for i, one in enumerate(first) if i != one]
    scores = data.scores
    torn = [i for i in again if scores is not None and scores[i] != scores[first[i]]]
    places = data.sides[FIRST].places
    return [
        f"{len(rows):,} {what}: "
        + _listed([f"{places[i]} = {places[first[i]]}" for i in rows], quote=False)
        for rows, what in (
            (again, "pairs are equal to one before"),
            (torn, "equal pairs have other scores"),
        )
        if rows
    ]


def _leaks(data: Dataset, first: np.ndarray) -> list[str]:
    split = np.array(data.split)
    trained = set(first[split == "train"].tolist())
    leaked = np.array([i for i in np.flatnonzero(split == "test") if first[i] in trained], int)
    if not len(leaked):
        return []
    where = _named(data, leaked)
    part = len(leaked) / int((split == "test").sum())
    return [f"leakage: {len(leaked):,} test items ({part:.1%}) are in train too: {where}"]


def _classes(data: Dataset, first: np.ndarray, again: np.ndarray) -> list[str]:
    labels, found = data.labels or (), []
    torn = np.array([i for i in again if labels[i] != labels[first[i]]], int)
    if len(torn):
        found.append(f"{len(torn):,} equal items have other labels: {_pairs(data, first, torn)}")
    if data.split is not None:
        pairs = set(zip(labels, data.split, strict=True))
        unseen = [c for c in data.classes if (c, "train") not in pairs]
        if unseen:
            found.append(f"{len(unseen):,} classes are in test alone: {_listed(unseen)}")
        return found
    distinct = np.flatnonzero(first == np.arange(len(first)))
    counts = np.bincount(data.targets[distinct], minlength=len(data.classes))
    alone = [name for name, n in zip(data.classes, counts, strict=True) if n < 2]  # noqa: PLR2004
    if alone:
        found.append(
            f"{len(alone):,} classes have one distinct item, and are left out where classes are "
            f"learned: {_listed(alone)}"
        )
    return found


def _pairs(data: Dataset, first: np.ndarray, rows: np.ndarray) -> str:
    places = data.sides[ITEMS].places
    return _listed([f"{places[i]} = {places[first[i]]}" for i in rows], quote=False)


def _named(data: Dataset, rows: np.ndarray) -> str:
    return _listed([data.sides[ITEMS].places[i] for i in rows], quote=False)


def _listed(names: list[str], *, quote: bool = True) -> str:
    shown = [repr(n) if quote else n for n in names[:_MOST_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
