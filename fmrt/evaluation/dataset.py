"""A data set in memory: what is to be embedded, and what is known of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import DataError

ITEMS, FIRST, SECOND, QUERIES, DOCUMENTS = "items", "first", "second", "queries", "documents"
LABELLED, PAIRS, RETRIEVAL, SEGMENTS = "labelled", "pairs", "retrieval", "segments"


@dataclass(frozen=True)
class Side:
    """Items that are embedded alike.

    Attributes:
        items: The texts, images or sounds, as `fmrt.Embedder.embed` takes them.
        places: The place that each item comes from, for messages.
        modality: The modality of the items: ``text``, ``image`` or ``audio``.
        prompt_names: The names of the prompt to embed with; the first that the model has counts.
    """

    items: Sequence[object]
    places: Sequence[str]
    modality: str = "text"
    prompt_names: tuple[str, ...] = ()

    @cached_property
    def identities(self) -> NDArray[np.bytes_]:
        """A hash of each item's content, 32 bytes each. They are kept, since files are read."""
        return np.array([identity(item) for item in self.items], "S32")

    @cached_property
    def first_of_equals(self) -> NDArray[np.int64]:
        """For each item, the row of the first item with the same content."""
        _, first, number = np.unique(self.identities, return_index=True, return_inverse=True)
        found: NDArray[np.int64] = first[number]
        return found

    def kept(self, rows: NDArray[np.int64]) -> Side:
        """The side with some of its items."""
        return replace(
            self, items=[self.items[i] for i in rows], places=[self.places[i] for i in rows]
        )


@dataclass(frozen=True)
class Dataset:
    """A data set that a model is tested on.

    Attributes:
        name: The name that the user gave.
        kind: The kind of data: ``labelled`` (one side of items, which may have labels), ``pairs``
            (two sides of equal length, which may have scores), ``retrieval`` (queries, documents
            and which belong together) or ``segments`` (images with masks).
        sides: The sides by name.
        labels: The labels of the items; None where there are none.
        split: The split of each item, ``train`` or ``test``; None where the data states none.
        scores: The scores of pairs, float64 ``[n]``; None where the pairs are translations
            of each other.
        relevant: For each query, the gain of each document that was judged, by row. A document
            that is not there has a row below 0.
        twins: For each query, the row of the document with its own identity, which is never
            found; -1 where there is none.
        masks: The files of the masks of the images of ``segments``. In a mask, each colour except
            black is an object.
        choices: Lines about what was decided, since the data does not say it itself.
        notes: Lines about what is wrong with the data.
    """

    name: str
    kind: str
    sides: Mapping[str, Side]
    labels: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    scores: NDArray[np.float64] | None = None
    relevant: tuple[Mapping[int, float], ...] = ()
    twins: tuple[int, ...] = ()
    masks: tuple[Path, ...] = ()
    choices: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels in order."""
        return tuple(sorted(set(self.labels or ())))

    @property
    def targets(self) -> NDArray[np.int64]:
        """The number of each item's class."""
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[label] for label in self.labels or ()], np.int64)

    def without(
        self, bad: Mapping[str, Collection[int]]
    ) -> tuple[Dataset, Mapping[str, NDArray[np.int64]]]:
        """Leave items out, and what depends on them.

        Args:
            bad: The rows of the items to leave out, by side.

        Returns:
            The rest of the data set, and for each side the rows that are kept.

        Raises:
            DataError: Nothing is left.
        """
        gone = {name: set(bad.get(name, ())) for name in self.sides}
        if self.kind == PAIRS:
            both = set().union(*gone.values())
            gone = dict.fromkeys(gone, both)
        kept = {
            name: np.array([i for i in range(len(side.items)) if i not in gone[name]], np.int64)
            for name, side in self.sides.items()
        }
        for name, rows in kept.items():
            if not len(rows):
                raise DataError(f"{self.name!r}: none of its {name} can be embedded")
        return self._with(kept), kept

    def _with(self, kept: Mapping[str, NDArray[np.int64]]) -> Dataset:
        sides = {name: side.kept(kept[name]) for name, side in self.sides.items()}
        if self.kind == RETRIEVAL:
            new = {int(row): i for i, row in enumerate(kept[DOCUMENTS])}
            relevant = tuple(
                {new.get(row, -1 - row if row >= 0 else row): gain for row, gain in one.items()}
                for one in (self.relevant[i] for i in kept[QUERIES])
            )
            twins = tuple(new.get(self.twins[i], -1) for i in kept[QUERIES])
            return replace(self, sides=sides, relevant=relevant, twins=twins)
        rows = next(iter(kept.values()))
        return replace(
            self,
            sides=sides,
            labels=None if self.labels is None else tuple(self.labels[i] for i in rows),
            split=None if self.split is None else tuple(self.split[i] for i in rows),
            scores=None if self.scores is None else self.scores[rows],
            masks=tuple(self.masks[i] for i in rows) if self.masks else (),
        )

    def sha256(self) -> str:
        """The hash of all items and what is known of them. Equal data sets have equal hashes."""
        digest = hashlib.sha256(self.kind.encode())
        for name, side in self.sides.items():
            digest.update(name.encode())
            digest.update(side.identities.tobytes())
        for mask in self.masks:
            digest.update(identity(mask))
        scores = None if self.scores is None else self.scores.tolist()
        known = (self.labels, self.split, scores, [sorted(r.items()) for r in self.relevant])
        digest.update(repr(known).encode())
        return digest.hexdigest()


def identity(item: object) -> bytes:
    """A hash of an item's content. The content of a file is its bytes."""
    if isinstance(item, os.PathLike):
        try:
            data = Path(item).read_bytes()
        except OSError:  # the model reports it when it comes to the file
            data = os.fsencode(item)
    elif isinstance(item, str):
        data = item.encode("utf-8", "surrogatepass")
    elif isinstance(item, bytes):
        data = item
    else:
        array = np.asarray(item)
        data = repr((array.shape, array.dtype.str)).encode() + array.tobytes()
    return hashlib.sha256(data).digest()
