"""Items whose vector need not be computed: equal to another of the window, or known from before.

Items are equal when the model's inputs are, byte for byte: `fmrt.preprocess.base.Encoded.keys`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Rows, Vectors

# Bytes of vectors that a stream remembers: 43,690 of 384 dimensions.
RECENT_BYTES = 64 << 20
# 128 bits: among a billion items, two share a digest with a probability of 1e-21.
DIGEST_BYTES = 16


class Recall(Protocol):
    """What a cache knows about some items."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Items whose vector need not be computed, bool ``[n]``."""

    def complete(self, vectors: Vectors) -> None:
        """Fill in the known rows of float32 ``[n, dim]``, and remember the others.

        Called once, in the order of the windows, when the others are computed.
        """


class VectorCache(Protocol):
    """Vectors that were computed before."""

    def recall(self, keys: Sequence[bytes]) -> Recall:
        """Look items up; no two of the keys are equal."""


class Deduplication:
    """Which items of a window are computed, and how the others get their vectors.

    Args:
        rows: The items, by their rows in the window, int64.
        keys: The keys of the items, or None to compute every one.
        caches: Asked in this order, each for what those before it do not know.

    Attributes:
        distinct: How many items differ.
        rows: Of those that are to be computed, int64.
        places: Of their vectors among those of the distinct ones, int64.
    """

    def __init__(
        self, rows: Rows, keys: Sequence[bytes] | None, caches: Sequence[VectorCache]
    ) -> None:
        self.rows = rows
        self.places: Rows = np.arange(len(rows))
        self.distinct = len(rows)
        self._inverse: Rows | None = None
        self._recalls: list[tuple[Rows, Recall]] = []
        if keys is not None:
            self._look_up(keys, caches)
        elif caches:
            raise TypeError("caches need keys")

    def _look_up(self, keys: Sequence[bytes], caches: Sequence[VectorCache]) -> None:
        first, self._inverse = _distinct(keys)
        self.distinct = len(first)
        self.places = np.arange(self.distinct)
        for cache in caches:
            recall = cache.recall([keys[i] for i in first[self.places]])
            self._recalls.append((self.places, recall))
            self.places = self.places[~recall.known]
        self.rows = self.rows[first[self.places]]

    def spread(self, vectors: Vectors) -> Vectors:
        """All items' vectors, from those of the distinct ones with ``places`` computed."""
        for places, recall in reversed(self._recalls):
            part = vectors[places]
            recall.complete(part)
            vectors[places] = part
        return vectors if self._inverse is None else vectors[self._inverse]


def digest(key: bytes) -> bytes:
    """What stands for a key where many are kept."""
    return blake2b(key, digest_size=DIGEST_BYTES).digest()


class Recent:
    """The latest vectors of one stream, each ``shape``, in a ring of fixed size.

    A place is given out when an item is looked up, and filled when its window is complete. Windows
    are looked up and completed in the same order, so a place that is given out again is filled
    again only after all that refer to its present content have read it.
    """

    def __init__(self, shape: tuple[int, ...], most_bytes: int = RECENT_BYTES) -> None:
        places = max(1, most_bytes // (4 * math.prod(shape)))
        self._vectors = np.empty((places, *shape), np.float32)
        self._owners: list[bytes | None] = [None] * len(self._vectors)
        self._places: dict[bytes, int] = {}
        self._next = 0

    def recall(self, keys: Sequence[bytes]) -> Recall:
        """Look items up, and give those that are new a place."""
        # What does not fit would overwrite places of its own window.
        digests = [digest(key) for key in keys]
        known = np.array([key in self._places for key in digests], bool)
        free = len(self._vectors)
        places = np.full(len(keys), -1, np.int64)
        for i in np.flatnonzero(known):
            places[i] = self._places[digests[i]]
        for i in np.flatnonzero(~known)[:free]:
            places[i] = self._take(digests[i])
        return _RecentRecall(self._vectors, known, places)

    def _take(self, key: bytes) -> int:
        place = self._next
        self._next = (place + 1) % len(self._owners)
        if (owner := self._owners[place]) is not None:
            del self._places[owner]
        self._owners[place] = key
        self._places[key] = place
        return place


class _RecentRecall(NamedTuple):
    ring: Vectors
    known: NDArray[np.bool_]
    places: Rows

    def complete(self, vectors: Vectors) -> None:
        vectors[self.known] = self.ring[self.places[self.known]]
        new = ~self.known & (self.places >= 0)
        self.ring[self.places[new]] = vectors[new]


def _distinct(keys: Sequence[bytes]) -> tuple[Rows, Rows | None]:
    """The first item of each kind, and which kind each item is; None when all differ."""
    kinds: dict[bytes, int] = {}
    inverse = [kinds.setdefault(key, len(kinds)) for key in keys]
    if len(kinds) == len(keys):
        return np.arange(len(keys)), None
    rows = np.array(inverse, np.int64)
    return np.unique(rows, return_index=True)[1].astype(np.int64), rows
