"""One stream of items to vectors: loaded, cut into windows, put into batches, computed in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from itertools import compress, count, repeat
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds, Vectors
from fmrt.bundle.manifest import Tower, Variant
from fmrt.embed_options import EmbedOptions
from fmrt.embedding.recall import Deduplication, Recent, VectorCache
from fmrt.embedding.scheduler import (
    WINDOW_ITEMS,
    Workers,
    plan_batches,
    window_sizes,
    windows,
)
from fmrt.errors import GraphError, InputError
from fmrt.options import MOST_TOKENS
from fmrt.preprocess.base import Encoded, Preprocessor
from fmrt.session import AllCores, Session

if TYPE_CHECKING:
    from fmrt.embedding.disk_cache import DiskCache

T = TypeVar("T")
OnError = Callable[[T, InputError], None]
Calls = list[Callable[[], None]]

# Items of a device's first window: some batches, which it computes while the next is prepared.
FIRST_WINDOW = 256
# Most components that are multiplied to see whether all are finite; BLAS takes threads for more.
MOST_MULTIPLIED = 8192
NOT_FINITE = "the model gives NaN or infinity for it; leave it out, or try another variant"


class Parts(NamedTuple):
    """What computes vectors, in one process.

    Attributes:
        tower: The graph's tower.
        variant: The graph.
        shape: The shape of an item's vector, or of its vectors.
        preprocess: Raw items to model inputs.
        session: The session that batches run on.
        workers: Threads that run them.
        loaders: Threads that decode items.
        all_cores: The session for few and short items, if there is one.
        cache: Vectors on disk.
    """

    tower: Tower
    variant: Variant
    shape: tuple[int, ...]
    preprocess: Preprocessor
    session: Session
    workers: Workers
    loaders: Workers
    all_cores: AllCores | None
    cache: DiskCache | None

    @property
    def longest_padded(self) -> int | None:
        """Length of the longest item that may share a batch with other lengths; None for any."""
        if not (self.preprocess.padded and self.variant.padded):
            return 0
        most = self.session.longest_padded
        return None if most is None else most * self.preprocess.stride

    def budget(self, batch_tokens: int) -> int:
        """Most positions of a batch, of which ``batch_tokens`` are allowed; 1 for one item each."""
        return 1 if self.variant.alone else batch_tokens

    def window_sizes(self, total: int | None) -> Iterator[int]:
        """Most items of each window of a stream of ``total`` items; None if that is not known."""
        most = self.session.window_items
        return repeat(WINDOW_ITEMS) if most is None else window_sizes(most, FIRST_WINDOW, total)

    def run(self, session: Session, feeds: Feeds, rows: int) -> Vectors:
        """The vectors of one batch.

        Raises:
            GraphError: They are not as many, or not of the shape, that the manifest says.
        """
        vectors = session.run(feeds)
        if vectors.shape != (rows, *self.shape):
            wanted = [rows, *self.shape]
            raise GraphError(
                f"variant {self.variant.name!r} gives {list(vectors.shape)} as "
                f"{self.tower.embedding_output!r}, and the manifest says {wanted}"
            )
        return vectors


@dataclass
class Truncation:
    """Counts what was cut in one stream.

    Attributes:
        items: Items seen.
        cut: Items that were longer than the model takes.
        longest: Length of the longest that was cut, before.
        counted: Whether that is known; else it is the least that it may be.
    """

    items: int = 0
    cut: int = 0
    longest: int = 0
    counted: bool = True

    def add(self, encoded: Encoded) -> None:
        """Count one window."""
        self.items += len(encoded.lengths)
        if encoded.cut:
            self.cut += len(encoded.cut)
            self.longest = max(self.longest, *encoded.cut)
            self.counted = self.counted and encoded.counted

    def message(self, preprocess: Preprocessor) -> str:
        """One line that says how many items were cut and how long they were."""
        least = "" if self.counted else "at least "
        return (
            f"{self.cut:,} of {self.items:,} {preprocess.unit}s had more than "
            f"{preprocess.shown(preprocess.limit)} (the longest {least}"
            f"{preprocess.shown(self.longest)}) and were truncated"
        )


class _Item(NamedTuple, Generic[T]):
    """An item on its way: its position in the stream, and what preprocessing made of it."""

    position: int
    item: T
    loaded: Any
    weight: int


class _Window(NamedTuple, Generic[T]):
    """Items of which some are computed, each into its row of ``vectors``."""

    entries: list[_Item[T]]
    vectors: Vectors
    deduplication: Deduplication
    reject: OnError[T]

    def complete(self) -> tuple[list[T], Vectors, Exception | None]:
        """The items with a vector each, when all are computed; one of no numbers is rejected.

        If that ends the stream, the items before it, and what to raise.
        """
        vectors = self.deduplication.spread(self.vectors)
        entries, failure = self.entries, None
        if not _all_finite(vectors):
            finite = np.array([np.isfinite(vector).all() for vector in vectors])
            errors = {int(row): InputError(NOT_FINITE) for row in np.flatnonzero(~finite)}
            end, failure = _reject_all(entries, errors, self.reject)
            finite[end:] = False
            entries = list(compress(entries, finite))
            vectors = vectors[finite]
        return [entry.item for entry in entries], vectors, failure


class Stream(Generic[T]):
    """How one stream runs.

    Args:
        parts: The parts that compute.
        raw_of: The function that gives what to embed of an item.
        options: ``on_too_long`` and ``dedupe`` of these.
        batch_tokens: Most positions of a batch, padding included.
        prompt: The text before every text.
        truncation: Counts what was cut.
        on_error: Takes each item that cannot be embedded, which is then left out.
        all_cores: Whether a stream of less than one batch may run on all cores.
        group_of: The function that gives an item's group, see `Engine.stream`.
        held_bytes: The function that gives what an item holds beside what is embedded.
    """

    def __init__(
        self,
        parts: Parts,
        raw_of: Callable[[T], object],
        options: EmbedOptions,
        *,
        batch_tokens: int,
        prompt: str,
        truncation: Truncation,
        on_error: OnError[T] | None,
        all_cores: bool,
        group_of: Callable[[T], Hashable] | None,
        held_bytes: Callable[[T], int] | None,
    ) -> None:
        self._parts = parts
        self._raw_of = raw_of
        self._on_too_long = options.on_too_long
        self._budget = batch_tokens * parts.preprocess.stride
        self._prompt = prompt
        self._truncation = truncation
        self._reject = on_error or _raise
        self._may_use_all_cores = all_cores and group_of is None
        self._group_of = group_of
        self._held_bytes = held_bytes
        caches: list[VectorCache] = [] if parts.cache is None else [parts.cache]
        self._caches: Callable[[T], list[VectorCache]] = lambda _: caches
        if options.dedupe:
            self._caches = _remembering(parts.shape, group_of, caches)

    def run(self, items: Iterable[T]) -> Iterator[tuple[list[T], Vectors]]:
        """Yield items and their vectors, a window at a time."""
        if isinstance(items, list | tuple) and len(items) == 1:
            # No thread has to wake for it: a query takes as long as its inference.
            return self._completed(self._only(items))
        preprocess, group_of = self._parts.preprocess, self._group_of
        # Vectors of a group depend on its items alone, so its windows do too.
        total = len(items) if isinstance(items, Sized) else None
        sizes = None if group_of else self._parts.window_sizes(total)
        cut = windows(
            self._loaded(items, self._parts.loaders.map if preprocess.parallel else map),
            lambda item: item.weight,
            preprocess.window_weight,
            sizes,
            None if group_of is None else lambda item: group_of(item.item),
        )
        return self._completed(self._parts.workers.run(self._jobs(cut)))

    def _only(self, items: Sequence[T]) -> Iterator[_Window[T]]:
        """The only window of a stream, computed by this thread, however long its item is."""
        self._budget = max(self._budget, MOST_TOKENS)
        loaded = self._load((0, items[0]))
        if not isinstance(loaded, _Item):
            self._reject(*loaded)
            return
        for window, calls in self._jobs([[loaded]]):
            for call in calls:
                call()
            yield window

    def _loaded(self, items: Iterable[T], mapped: Any) -> Iterator[_Item[T]]:  # noqa: ANN401
        """The items that can be decoded; ``mapped`` is `map` or the loaders' own."""
        for result in mapped(self._load, zip(count(), items, strict=False)):
            if isinstance(result, _Item):
                yield result
            else:
                self._reject(*result)

    def _load(self, entry: tuple[int, T]) -> _Item[T] | tuple[T, InputError]:
        """Decode one item; the memory that it lacks is its own error, as others may be smaller."""
        (position, item), preprocess = entry, self._parts.preprocess
        try:
            loaded = preprocess.load(self._raw_of(item))
        except InputError as e:
            return item, e.at(position)
        except MemoryError:
            return item, InputError("there is not enough memory to decode it", position)
        # A window holds its results too, and vectors of patches outweigh the pixels.
        results = 0 if self._parts.tower.grid is None else 4 * math.prod(self._parts.shape)
        held = 0 if self._held_bytes is None else self._held_bytes(item)
        return _Item(position, item, loaded, preprocess.weight(loaded) + results + held)

    def _completed(self, running: Iterable[_Window[T]]) -> Iterator[tuple[list[T], Vectors]]:
        for window in running:
            items, vectors, failure = window.complete()
            yield items, vectors
            if failure is not None:
                raise failure

    def _jobs(self, cut: Iterable[list[_Item[T]]]) -> Iterator[tuple[_Window[T], Calls]]:
        """Windows, each with the calls that compute its vectors.

        Where an item is rejected for good, what comes before it is a last window.
        """
        for window in cut:
            loaded = [entry.loaded for entry in window]
            encoded = self._parts.preprocess.encode(loaded, self._prompt, self._on_too_long)
            good, failure = np.arange(len(window)), None
            if encoded.errors:
                end, failure = _reject_all(window, encoded.errors, self._reject)
                good = np.delete(good[:end], [row for row in encoded.errors if row < end])
            self._truncation.add(encoded)
            yield self._job(window, encoded, good)
            if failure is not None:
                raise failure

    def _job(
        self, window: list[_Item[T]], encoded: Encoded, good: NDArray[np.int64]
    ) -> tuple[_Window[T], Calls]:
        """The ``good`` rows of a window, and the calls that compute their vectors."""
        parts = self._parts
        constants = parts.preprocess.constants(self._prompt)
        deduplication = self._deduplicate(encoded, good, constants, self._caches(window[0].item))
        lengths = encoded.lengths[deduplication.rows]
        out = np.empty((deduplication.distinct, *parts.shape), np.float32)
        batch = partial(self._batch, encoded, deduplication, constants, out)

        def calls(session: Session, workers: int) -> Calls:
            plan = plan_batches(
                lengths,
                parts.budget(self._budget),
                longest_padded=parts.longest_padded,
                workers=workers if self._group_of is None else 1,
            )
            return [partial(batch, session, places) for places in plan]

        few = len(lengths) == 1 or int(lengths.sum()) <= self._budget
        first = self._may_use_all_cores and window[0].position == 0
        left = self._few(calls) if few and first else calls(parts.session, parts.workers.count)
        if len(good) < len(window):
            window = [window[row] for row in good.tolist()]
        return _Window(window, out, deduplication, self._reject), left

    def _deduplicate(
        self,
        encoded: Encoded,
        good: NDArray[np.int64],
        constants: Feeds,
        caches: Sequence[VectorCache],
    ) -> Deduplication:
        """Which of the ``good`` rows are computed."""
        keys = None
        if caches or (self._parts.preprocess.dedupe and len(good) > 1):
            keys = encoded.keys(good)
        if caches and constants and keys is not None:
            shared = b"".join(name.encode() + constants[name].tobytes() for name in constants)
            keys = [shared + key for key in keys]
        return Deduplication(good, keys, caches)

    def _few(self, calls: Callable[[Session, int], Calls]) -> Calls:
        """Compute a stream's only batches here, not after those of others; returns what is left.

        They have all cores to themselves if the session for that is open, and not in use.
        """
        parts = self._parts
        if parts.all_cores is None:
            return calls(parts.session, parts.workers.count)
        session = parts.all_cores.take()
        try:
            found = calls(session or parts.session, 1 if session else parts.workers.count)
            if session is None and len(found) > 1:
                return found
            for call in found:
                call()
            return []
        finally:
            if session is not None:
                parts.all_cores.give_back()

    def _batch(
        self,
        encoded: Encoded,
        deduplication: Deduplication,
        constants: Feeds,
        out: Vectors,
        session: Session,
        chosen: NDArray[np.int64],
    ) -> None:
        """Compute ``chosen`` of what is to be computed, each into its place of ``out``."""
        feeds = {**encoded.feeds(deduplication.rows[chosen]), **constants}
        # An only row is found at once: by its place takes long, and a query waits for it.
        places = ... if len(chosen) == len(out) == 1 else deduplication.places[chosen]
        out[places] = self._parts.run(session, feeds, len(chosen))


def _reject_all(
    entries: Sequence[_Item[T]], errors: Mapping[int, InputError], reject: OnError[T]
) -> tuple[int, Exception | None]:
    """Reject items by row; the row of the first at which that raises, and what it does raise."""
    for row, error in sorted(errors.items()):
        try:
            reject(entries[row].item, error.at(entries[row].position))
        except Exception as e:  # raised when the rows before it are done
            return row, e
    return len(entries), None


def _remembering(
    shape: tuple[int, ...],
    group_of: Callable[[T], Hashable] | None,
    others: Sequence[VectorCache],
) -> Callable[[T], list[VectorCache]]:
    """Gives the caches for a window by its first item: a new one for another group."""
    group: Hashable = None
    recent: Recent | None = None

    def caches(first: T) -> list[VectorCache]:
        nonlocal group, recent
        now = None if group_of is None else group_of(first)
        if recent is None or now != group:
            group, recent = now, Recent(shape)
        return [recent, *others]

    return caches


def _all_finite(vectors: Vectors) -> bool:
    """Whether no component is NaN or infinity."""
    # One number is seen at once: it is NaN or infinity where a component is. Where it alone is, as
    # the components are large, each is looked at.
    if vectors.size <= MOST_MULTIPLIED and math.isfinite(np.vdot(vectors, vectors)):
        return True
    return bool(np.isfinite(vectors).all())


def _raise(_: object, error: InputError) -> None:
    raise error
