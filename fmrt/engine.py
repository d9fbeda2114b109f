"""Items to vectors in input order: preprocessing, scheduler and session joined into one stream."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, count
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmrt import native
from fmrt.bundle import Bundle
from fmrt.cores import available_cores
from fmrt.disk_cache import DiskCache
from fmrt.errors import GraphError, InputError, OptionError
from fmrt.limits import DEFAULT, Limits
from fmrt.manifest import Tower, Variant
from fmrt.preprocess import make_preprocessor
from fmrt.preprocess.base import Encoded, Feeds, Preprocessor
from fmrt.recall import Memory, Recent, Share
from fmrt.scheduler import BATCH_TOKENS, WINDOW_ITEMS, Workers, plan_batches, windows
from fmrt.session import Alone, DeviceOptions, Session, open_session, resolve_provider
from fmrt.tuning import Tuning, default_query_threads, load_tuning
from fmrt.vocabulary import find_vocabulary

T = TypeVar("T")
Vectors = NDArray[np.float32]
OnError = Callable[[T, InputError], None]

# Bytes of a graph above which its weights are not loaded a second time for few and short items.
MOST_WEIGHTS_TWICE = 1 << 29
NOT_FINITE = "the model gives NaN or infinity for it; leave it out, or try another variant"
ONLY = np.zeros(1, np.int64)  # the rows of a single item


@dataclass
class Truncation:
    """Counts what was cut in one stream.

    Attributes:
        items: items seen.
        cut: items that were longer than the model takes.
        longest: length of the longest that was cut, before.
        counted: whether that is known; else it is the least that it may be.
    """

    items: int = 0
    cut: int = 0
    longest: int = 0
    counted: bool = True

    def add(self, encoded: Encoded) -> None:
        """Count one window."""
        self.items += len(encoded.lengths)
        cut = encoded.untruncated > encoded.lengths
        if cut.any():
            self.cut += int(cut.sum())
            self.longest = max(self.longest, int(encoded.untruncated[cut].max()))
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


@dataclass(frozen=True)
class _Window(Generic[T]):
    """Items of which some are computed, each into its row of ``vectors``."""

    entries: list[_Item[T]]
    vectors: Vectors
    share: Share
    reject: OnError[T]

    def complete(self) -> tuple[list[T], Vectors, Exception | None]:
        """The items with a vector each, when all are computed; one of no numbers is rejected.

        If that ends the stream, the items before it, and what to raise.
        """
        vectors = self.share.spread(self.vectors)
        entries, failure = self.entries, None
        if not np.isfinite(vectors).all():
            finite = np.array([np.isfinite(vector).all() for vector in vectors])
            errors = {int(row): InputError(NOT_FINITE) for row in np.flatnonzero(~finite)}
            end, failure = _reject_all(entries, errors, self.reject)
            finite[end:] = False
            entries = list(compress(entries, finite))
            vectors = vectors[finite]
        return [entry.item for entry in entries], vectors, failure


@dataclass(frozen=True)
class _Options(Generic[T]):
    """What `Engine.stream` was asked for; ``fixed``: batches must not depend on the machine."""

    prompt: str
    on_too_long: str
    batch_tokens: int
    truncation: Truncation
    reject: OnError[T]
    memories: Callable[[T], list[Memory]]
    alone: bool
    fixed: bool


class Engine:
    """A loaded variant of one tower of a bundle.

    Args:
        bundle: where the files are; each is checked against its hash.
        variant: a name, or None for the provider's own fp32 one.
        provider: as of `resolve_provider`.
        modality: of the tower; None for the only one, or that of texts.
        device_options: of GPUs.
        tuning: threads and batches; default what was measured on this machine, else as many
            workers as the session's device computes batches at a time, on the CPU one a core this
            process may use.
        limits: of the memory that an item may take while it is prepared.

    Raises:
        BundleError: missing, corrupt, or no such variant.
        ProviderError: the provider cannot be had.
        OptionError: the bundle does not embed that modality, or CUDA graphs of a packed variant.
        MissingExtraError: a package that the modality needs is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str | None = None,
        provider: str = "cpu",
        modality: str | None = None,
        device_options: DeviceOptions | None = None,
        tuning: Tuning | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        target = resolve_provider(provider)
        self.tower: Tower = bundle.manifest.tower(modality)
        self.shape = self.tower.shape(bundle.manifest.dim)
        self.variant: Variant = bundle.variant(variant, target.name, self.tower.modality)
        if self.variant.packed and device_options is not None and device_options.cuda_graphs:
            raise OptionError(
                f"CUDA graphs need tensors of one size, which {self.variant.name} has not; choose "
                f"variant {self.variant.name.removesuffix('-packed')}, or no CUDA graphs"
            )
        self.provider = target.spec
        self.preprocess = make_preprocessor(bundle, self.tower, limits)
        graph, tower = bundle.checked_graph(self.variant), self.tower

        def opened(threads: int) -> Session:
            output, inputs = tower.embedding_output, tower.inputs
            return graph.use(
                lambda path: open_session(path, target, output, device_options, inputs, threads)
            )

        self._open = opened
        self.on_host = target.provider.on_host
        self.tuning = tuning or (load_tuning(self.variant) if self.on_host else Tuning())
        self._cache_directory: Path | None = None
        self._cache: DiskCache | None = None
        self._start(self._open(self.tuning.intra_op_threads or 1))
        if self.on_host:
            find_vocabulary(self.preprocess, self._session)

    def _start(self, session: Session) -> None:
        """Make what belongs to this process and no other."""
        self._session = session
        workers = self.tuning.workers or self._session.workers or available_cores()
        self._workers = Workers(workers)
        # Of their own: a loader that waits behind a window's batches would stop the next window.
        self._loaders = Workers(self.tuning.workers or available_cores())
        self._alone = self._make_alone() if self.on_host else None
        if self._cache_directory is not None:
            self.use_cache(self._cache_directory)
        self._process = os.getpid()

    def _adapt(self) -> None:
        """Start again where the process was forked since: a fork takes no threads along."""
        if self._process == os.getpid():
            return
        native.refuse_forked_device(self.provider)
        with native.adapting():
            if self._process != os.getpid():
                threads = self.tuning.intra_op_threads or 1
                self._start(self._session.in_child() or self._open(threads))

    def stream(
        self,
        items: Iterable[T],
        raw_of: Callable[[T], object],
        *,
        prompt: str = "",
        on_too_long: str = "truncate",
        batch_tokens: int | None = None,
        truncation: Truncation | None = None,
        on_error: OnError[T] | None = None,
        alone: bool = True,
        dedupe: bool = False,
        group_of: Callable[[T], Hashable] | None = None,
    ) -> Iterator[tuple[list[T], Vectors]]:
        """Yield the items in input order, a window at a time, with vectors float32 ``[n, dim]``.

        Of a bundle with a grid, vectors are ``[n, patches, dim]``.

        Memory is bounded by two windows, whatever the length of ``items``. Equal texts of a window
        are computed once.

        Args:
            items: any objects.
            raw_of: what to embed of an item.
            prompt: in front of every text.
            on_too_long: ``error``, or anything else to truncate.
            batch_tokens: most positions of a batch, padding included.
            truncation: counts what was cut.
            on_error: takes each item that cannot be embedded, which is then left out.
            alone: whether a stream of less than one batch may have all cores to itself.
            dedupe: remember vectors beyond the window, in `RECENT_BYTES`.
            group_of: of an item; a window ends where it changes, nothing is remembered beyond, and
                batches do not depend on the number of workers: the vectors of a group depend on
                its items alone, to the last bit.

        Raises:
            InputError: an item that cannot be embedded, without ``on_error``; ``index`` counts
                from the stream's start.
        """
        self._adapt()
        caches: list[Memory] = [] if self._cache is None else [self._cache]
        options = _Options(
            prompt,
            on_too_long,
            batch_tokens or self.batch_tokens,
            truncation or Truncation(),
            on_error or _raise,
            _remembering(self.shape, group_of, caches) if dedupe else lambda _: caches,
            alone and group_of is None,
            group_of is not None,
        )
        cut = windows(
            self._loaded(items, raw_of, options.reject),
            lambda item: item.weight,
            self.preprocess.window_weight,
            self.window_items,
            None if group_of is None else lambda item: group_of(item.item),
        )
        return self._completed(self._workers.run(self._jobs(cut, options)))

    def one(
        self,
        item: object,
        prompt: str = "",
        on_too_long: str = "truncate",
        truncation: Truncation | None = None,
    ) -> Vectors:
        """The vector of one item, float32 ``[1, dim]``, as `stream` gives it.

        On the CPU it goes straight to the session that has all cores, unless vectors are kept on
        disk. A model's weights push all else out of the caches, and Python is slow behind them.

        Raises:
            InputError: an item that cannot be embedded.
        """
        self._adapt()
        truncation = truncation or Truncation()
        if self._cache is not None or not self.on_host:
            stream = self.stream(
                [item],
                lambda item: item,
                prompt=prompt,
                on_too_long=on_too_long,
                truncation=truncation,
            )
            return np.concatenate([vectors for _, vectors in stream])
        try:
            loaded = self._load(item)
        except InputError as e:
            raise e.at(0) from None
        encoded = self.preprocess.encode([loaded], prompt, on_too_long)
        for error in encoded.errors.values():
            raise error.at(0)
        truncation.add(encoded)
        feeds = {**encoded.feeds(ONLY), **self.preprocess.constants(prompt)}
        if self._alone is None:
            vector = self._run(self._session, feeds, 1)
        else:
            with self._alone.session() as session:
                vector = self._run(session or self._session, feeds, 1)
        if not np.isfinite(vector).all():
            raise InputError(NOT_FINITE, 0)
        return vector

    @property
    def longest_padded(self) -> int | None:
        """Length of the longest item that may share a batch with other lengths; None for any."""
        if not (self.preprocess.padded and self.variant.padded):
            return 0
        most = self._session.longest_padded
        return None if most is None else most * self.preprocess.stride

    @property
    def batch_tokens(self) -> int:
        """Most positions of a batch, unless a stream is asked for another number."""
        return self._session.batch_tokens or self.tuning.batch_tokens or BATCH_TOKENS

    @property
    def workers(self) -> int:
        """Batches that run at the same time."""
        return self._workers.count

    @property
    def window_items(self) -> int:
        """Most items of a window."""
        return self._session.window_items or WINDOW_ITEMS

    def vectors(self, items: Sequence[object], prompt: str = "") -> Vectors:
        """Vectors of a short list, float32 ``[n, dim]``, from the session that long ones use."""
        stream = self.stream(items, lambda item: item, prompt=prompt, alone=False)
        parts = [part for _, part in stream]
        return np.concatenate([np.empty((0, *self.shape), np.float32), *parts])

    def use_cache(self, directory: Path) -> None:
        """Look items up on disk from now on, and keep those that are new there.

        Raises:
            DataError: the directory cannot be used.
        """
        provider = self.provider.partition(":")[0]
        output = self.tower.embedding_output
        self._cache_directory = directory
        self._cache = DiskCache(directory, self.variant, provider, output, self.shape)

    def wait(self) -> None:
        """Until a session that is being opened in the background is open."""
        if self._alone is not None:
            self._alone.wait()

    def close(self) -> None:
        """End the worker threads; in a forked process, where there are none, do nothing."""
        if self._process != os.getpid():
            return
        self._workers.close()
        self._loaders.close()
        self.wait()
        if self._cache is not None:
            self._cache.close()

    def _make_alone(self) -> Alone | None:
        """A session for few and short items, where it has more threads than the other."""
        threads = self.tuning.query_threads or default_query_threads()
        weights = self.variant.size + sum(r.size for r in self.variant.external.values())
        if threads <= (self.tuning.intra_op_threads or 1) or weights > MOST_WEIGHTS_TWICE:
            return None
        return Alone(partial(self._open, threads))

    def _load(self, raw: object) -> Any:  # noqa: ANN401  # as the preprocessor's
        """Prepare one item; what memory it lacks is its own error, as others may be smaller."""
        try:
            return self.preprocess.load(raw)
        except MemoryError as e:
            raise InputError("there is not enough memory to decode it") from e

    def _loaded(
        self, items: Iterable[T], raw_of: Callable[[T], object], reject: OnError[T]
    ) -> Iterator[_Item[T]]:
        def load(entry: tuple[int, T]) -> _Item[T] | tuple[T, InputError]:
            position, item = entry
            try:
                loaded = self._load(raw_of(item))
            except InputError as e:
                return item, e.at(position)
            # A window holds its results too, and vectors of patches outweigh the pixels.
            results = 0 if self.tower.grid is None else 4 * math.prod(self.shape)
            return _Item(position, item, loaded, self.preprocess.weight(loaded) + results)

        entries = zip(count(), items, strict=False)
        mapped = self._loaders.map if self.preprocess.parallel else map
        for result in mapped(load, entries):
            if isinstance(result, _Item):
                yield result
            else:
                reject(*result)

    def _completed(self, running: Iterable[_Window[T]]) -> Iterator[tuple[list[T], Vectors]]:
        for window in running:
            items, vectors, failure = window.complete()
            yield items, vectors
            if failure is not None:
                raise failure

    def _jobs(
        self, cut: Iterable[list[_Item[T]]], options: _Options[T]
    ) -> Iterator[tuple[_Window[T], list[Callable[[], None]]]]:
        """Windows, each with the calls that compute its vectors.

        Where an item is rejected for good, what comes before it is a last window.
        """
        for window in cut:
            encoded = self.preprocess.encode(
                [entry.loaded for entry in window], options.prompt, options.on_too_long
            )
            end, failure = _reject_all(window, encoded.errors, options.reject)
            options.truncation.add(encoded)
            good = np.arange(end)
            if encoded.errors:
                good = np.delete(good, [row for row in encoded.errors if row < end])
            yield self._job(window, encoded, good, options)
            if failure is not None:
                raise failure

    def _job(
        self,
        window: list[_Item[T]],
        encoded: Encoded,
        good: NDArray[np.int64],
        options: _Options[T],
    ) -> tuple[_Window[T], list[Callable[[], None]]]:
        """The ``good`` rows of a window, and the calls that compute their vectors."""
        constants = self.preprocess.constants(options.prompt)
        share = self._share(encoded, good, constants, options.memories(window[0].item))
        rows = good[share.first[share.rows]]
        lengths = encoded.lengths[rows]
        out = np.empty((share.distinct, *self.shape), np.float32)
        batch = partial(self._batch, encoded, rows, constants, out, share.rows)
        budget = options.batch_tokens * self.preprocess.stride

        def calls(session: Session, workers: int) -> list[Callable[[], None]]:
            plan = plan_batches(
                lengths,
                budget,
                longest_padded=self.longest_padded,
                workers=1 if options.fixed else workers,
            )
            return [partial(batch, session, places) for places in plan]

        few = options.alone and window[0].position == 0 and int(lengths.sum()) <= budget
        left = self._few(calls) if few else calls(self._session, self._workers.count)
        entries = [window[row] for row in good.tolist()]
        return _Window(entries, out, share, options.reject), left

    def _share(
        self,
        encoded: Encoded,
        good: NDArray[np.int64],
        constants: Feeds,
        memories: Sequence[Memory],
    ) -> Share:
        """Which of the ``good`` rows are computed."""
        keys = None
        if memories or (self.preprocess.dedupe and len(good) > 1):
            keys = encoded.keys(good)
        if memories and constants and keys is not None:
            shared = b"".join(name.encode() + constants[name].tobytes() for name in constants)
            keys = [shared + key for key in keys]
        return Share(len(good), keys, memories)

    def _few(
        self, calls: Callable[[Session, int], list[Callable[[], None]]]
    ) -> list[Callable[[], None]]:
        """Compute a stream's only batches here, not behind those of others; returns what is left.

        They have all cores to themselves if the session for that is open, and not in use.
        """
        if self._alone is None:
            return calls(self._session, self._workers.count)
        with self._alone.session() as session:
            found = calls(session or self._session, 1 if session else self._workers.count)
            if session is None and len(found) > 1:
                return found
            for call in found:
                call()
            return []

    def _batch(
        self,
        encoded: Encoded,
        rows: NDArray[np.int64],
        constants: Feeds,
        out: Vectors,
        places: NDArray[np.int64],
        session: Session,
        chosen: NDArray[np.int64],
    ) -> None:
        """Compute ``chosen`` of the ``rows`` into their ``places`` of ``out``."""
        feeds = {**encoded.feeds(rows[chosen]), **constants}
        out[places[chosen]] = self._run(session, feeds, len(chosen))

    def _run(self, session: Session, feeds: Feeds, rows: int) -> Vectors:
        vectors = session.run(feeds)
        if vectors.shape != (rows, *self.shape):
            wanted = [rows, *self.shape]
            raise GraphError(
                f"variant {self.variant.name!r} gives {list(vectors.shape)} as "
                f"{self.tower.embedding_output!r}, and the manifest says {wanted}"
            )
        return vectors


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
    others: Sequence[Memory],
) -> Callable[[T], list[Memory]]:
    """Gives the memories for a window by its first item: a new one for another group."""
    group: Hashable = None
    recent: Recent | None = None

    def memories(first: T) -> list[Memory]:
        nonlocal group, recent
        now = None if group_of is None else group_of(first)
        if recent is None or now != group:
            group, recent = now, Recent(shape)
        return [recent, *others]

    return memories


def _raise(_: object, error: InputError) -> None:
    raise error
