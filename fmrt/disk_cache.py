"""Vectors kept on disk between runs, for items that come again.

An SQLite file a graph and provider, in a directory that the user gives. Its rows are found by a
digest of the model's inputs, so that prompts, truncation and the like need no part in the key, and
hold what the graph gave, before any postprocessing.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import DataError
from fmrt.manifest import Variant
from fmrt.recall import Recall, Vectors, digest

# Other processes' transactions last for a window's vectors, far less than this.
WAIT_SECONDS = 60
# Below SQLite's limit of parameters a statement in every version.
KEYS_AT_A_TIME = 900
# Of the layout of the file and its keys.
VERSION = 1
_FLOAT = np.dtype("<f4")


class DiskCache:
    """The vectors of one graph on one provider; safe from many threads and processes.

    A process that is killed loses what it has not put yet, and nothing else: SQLite's write-ahead
    log is atomic. The directory must be on a local disk.

    Args:
        directory: of the files, made if need be.
        variant: the graph.
        provider: name of what it runs on.
        output: of the graph, that is the embedding.
        shape: of an item's embedding.

    Raises:
        DataError: there can be no such file.
    """

    def __init__(
        self, directory: Path, variant: Variant, provider: str, output: str, shape: tuple[int, ...]
    ) -> None:
        external = sorted(record.sha256 for record in variant.external.values())
        facts = (VERSION, variant.sha256, external, provider, output, shape)
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        self.path = directory / f"{name}.sqlite"
        self._shape = shape
        self._lock = threading.Lock()
        with self._use():
            directory.mkdir(parents=True, exist_ok=True)
            self._database = _open(self.path)

    def recall(self, keys: Sequence[bytes]) -> Recall:
        """Look items up.

        Raises:
            DataError: the file cannot be read.
        """
        digests = [digest(key) for key in keys]
        found: dict[bytes, bytes] = {}
        with self._use():
            for start in range(0, len(digests), KEYS_AT_A_TIME):
                found.update(self._select(digests[start : start + KEYS_AT_A_TIME]))
        size = _FLOAT.itemsize * math.prod(self._shape)
        if any(len(vector) != size for vector in found.values()):
            raise DataError(f"{str(self.path)!r} is damaged: remove it")
        return _DiskRecall(self, digests, found)

    def put(self, digests: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors, all or none of them."""
        rows = zip(digests, (vector.astype(_FLOAT).tobytes() for vector in vectors), strict=True)
        with self._use(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _select(self, digests: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        places = ",".join("?" * len(digests))
        query = f"SELECT key, vector FROM vectors WHERE key IN ({places})"  # noqa: S608  # only ?
        return self._database.execute(query, digests).fetchall()

    @contextmanager
    def _use(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as e:
            raise DataError(
                f"cannot use the cache {str(self.path)!r}: {e}; remove the file, or choose another "
                "place"
            ) from e


@dataclass(frozen=True)
class _DiskRecall:
    cache: DiskCache
    digests: list[bytes]
    found: dict[bytes, bytes]

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.array([key in self.found for key in self.digests], bool)

    def complete(self, vectors: Vectors) -> None:
        new = [i for i, key in enumerate(self.digests) if key not in self.found]
        for i, key in enumerate(self.digests):
            if key in self.found:
                vectors[i] = np.frombuffer(self.found[key], _FLOAT).reshape(vectors.shape[1:])
        if new:
            self.cache.put([self.digests[i] for i in new], vectors[new])


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the latest vectors; none are lost to a kill.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
        )
    except BaseException:
        database.close()
        raise
    return database
