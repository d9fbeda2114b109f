"""Vectors kept on disk between runs, for items that come again.

An SQLite file a graph and provider, in a directory that the user gives. Its rows are found by a
digest of the model's inputs, so that prompts, truncation and the like need no part in the key, and
hold what the graph gave, before any postprocessing. A checksum over the graph, the key and the
vector goes with each row: a row that is not as it was written, or is another graph's, is as good as
none, and is computed and written again.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Vectors
from fmrt.bundle.manifest import Variant
from fmrt.embedding.recall import Recall, digest
from fmrt.errors import CacheWarning, ClosedError, DataError
from fmrt.system import native
from fmrt.words import one_line

# Other processes' transactions last for a window's vectors, far less than this.
WAIT_SECONDS = 60
# Below SQLite's limit of parameters a statement in every version.
KEYS_AT_A_TIME = 900
# The version of the file's layout and its keys. Version 1 had no checksums.
VERSION = 2
CHECKSUM_BYTES = 8
_FLOAT = np.dtype("<f4")
_TABLE = (
    "CREATE TABLE {}vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
)
# What to do about an error of SQLite, by what is in its text.
_REMEDIES = {
    "full": "free some space there, or choose another place",
    "readonly": "make it writable, or choose another place",
    "unable to open": "make the directory writable, or choose another place",
    "locked": "wait for the other process, or choose another place",
}
_REMEDY = "remove the file, or choose another place"


class DiskCache:
    """The vectors of one graph on one provider; safe from many threads and processes.

    A process that is killed loses what it has not put yet, and nothing else: SQLite's write-ahead
    log is atomic. The directory must be on a local disk.

    Args:
        directory: The directory of the files, made if need be.
        variant: The graph.
        provider: Name of what it runs on.
        output: The graph's output that is the embedding.
        shape: The shape of an item's embedding.

    Raises:
        DataError: There can be no such file.
    """

    def __init__(
        self, directory: Path, variant: Variant, provider: str, output: str, shape: tuple[int, ...]
    ) -> None:
        external = sorted(record.sha256 for record in variant.external.values())
        facts = (variant.sha256, external, provider, output, shape)
        self._graph = hashlib.sha256(json.dumps((VERSION, *facts)).encode()).digest()
        self.path = directory / _file_name(VERSION, facts)
        self._shape = shape
        self._lock = threading.Lock()
        self._closed = False
        with self._use():
            directory.mkdir(parents=True, exist_ok=True)
            self._database = _open(self.path)
        native.bind(self)
        _say_if_there(directory / _file_name(1, facts))

    def recall(self, keys: Sequence[bytes]) -> Recall:
        """Look items up.

        Raises:
            DataError: The file cannot be read.
        """
        digests = [digest(key) for key in keys]
        found: dict[bytes, bytes] = {}
        with self._use():
            for start in range(0, len(digests), KEYS_AT_A_TIME):
                found.update(self._select(digests[start : start + KEYS_AT_A_TIME]))
        return _DiskRecall(self, digests, found)

    def put(self, digests: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors, all or none of them, but never one with NaN or infinity."""
        finite = [np.isfinite(vector).all() for vector in vectors]
        blobs = [vector.astype(_FLOAT).tobytes() for vector in vectors]
        pairs = compress(zip(digests, blobs, strict=True), finite)
        rows = [(key, blob, self._checksum(key, blob)) for key, blob in pairs]
        with self._use(), self._database:
            # A row that is there all the same is damaged, or another process's of this moment.
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self._database.close()

    def _select(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The keys and vectors that are there, as they were written."""
        places = ",".join("?" * len(digests))
        query = f"SELECT * FROM vectors WHERE key IN ({places})"  # noqa: S608  # only ?
        size = _FLOAT.itemsize * math.prod(self._shape)
        for key, vector, checksum in self._database.execute(query, digests).fetchall():
            # SQLite keeps values of any type in any column.
            if not isinstance(vector, bytes) or len(vector) != size:
                continue
            if self._checksum(key, vector) == checksum:
                yield key, vector

    def _checksum(self, key: bytes, vector: bytes) -> bytes:
        found = hashlib.blake2b(vector, digest_size=CHECKSUM_BYTES, key=self._graph, person=key)
        return found.digest()

    @contextmanager
    def _use(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError, ValueError) as e:  # the last of text that is not UTF-8
            if self._closed:
                raise ClosedError from e
            remedy = next((do for part, do in _REMEDIES.items() if part in str(e)), _REMEDY)
            raise DataError(
                f"cannot use the cache {str(self.path)!r}: {one_line(e)}; {remedy}"
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


def _file_name(version: int, facts: tuple[object, ...]) -> str:
    return f"{hashlib.sha256(json.dumps((version, *facts)).encode()).hexdigest()[:32]}.sqlite"


def _say_if_there(old: Path) -> None:
    if old.exists():
        warnings.warn(
            f"the cache {str(old)!r} of an earlier fmrt is not used, as its rows have no "
            "checksums: remove it",
            CacheWarning,
            stacklevel=2,
        )


def _open(path: Path) -> sqlite3.Connection:
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file")
    database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
    try:
        # The file may be anyone's: nothing in it is run.
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the latest vectors; none are lost to a kill.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_TABLE.format("IF NOT EXISTS "))
        _check_schema(database)
    except BaseException:
        database.close()
        raise
    return database


def _check_schema(database: sqlite3.Connection) -> None:
    """Raise unless the file holds our table and nothing else, such as a trigger on it."""
    schema = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if schema != [(_TABLE.format(""),)]:
        raise sqlite3.DatabaseError("it is no cache of fmrt")
