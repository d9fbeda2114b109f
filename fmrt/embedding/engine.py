"""A loaded variant of one tower of a bundle, in this process, and the streams that it computes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from fmrt.arrays import Vectors
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Tower, Variant
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.embedding.scheduler import BATCH_TOKENS, Workers
from fmrt.embedding.stream import OnError, Parts, Stream, Truncation
from fmrt.embedding.tuning import (
    Tuning,
    default_query_threads,
    load_tuning,
    provider_facts,
)
from fmrt.embedding.vocabulary import find_vocabulary
from fmrt.errors import OptionError
from fmrt.preprocess import make_preprocessor
from fmrt.session import (
    AllCores,
    DeviceOptions,
    Session,
    Target,
    open_session,
    resolve_provider,
)
from fmrt.system import native
from fmrt.system.cores import available_cores
from fmrt.system.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from fmrt.embedding.disk_cache import DiskCache
    from fmrt.preprocess.text import TextPreprocessor

T = TypeVar("T")

# Bytes of a graph above which its weights are not loaded a second time for few and short items.
MOST_WEIGHTS_TWICE = 1 << 29


class Engine:
    """A loaded variant of one tower of a bundle.

    Args:
        bundle: The bundle with the files; each is checked against its hash.
        variant: a name, or None for the provider's own fp32 one.
        provider: The provider, as `resolve_provider` takes it.
        modality: The tower's modality; None for the only one, or that of texts.
        device_options: What GPUs are asked for.
        tuning: threads and batches; default what was measured on this machine, else as many
            workers as the session's device computes batches at a time, on the CPU one a core this
            process may use.
        limits: The limits of the memory that an item may take while it is prepared.

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
        found = bundle.variant(variant, target.name, self.tower.modality)
        measured = self._measured(found, target)
        self.tuning = tuning or measured
        self.variant: Variant = found.in_form(self.tuning.form or measured.form)
        if self.variant.packed and device_options is not None and device_options.cuda_graphs:
            raise OptionError(
                f"CUDA graphs need tensors of one size, which {self.variant.name} has not; choose "
                f"variant {self.variant.name.removesuffix('-packed')}, or no CUDA graphs"
            )
        self.provider = target.spec
        self.preprocess = make_preprocessor(bundle, self.tower, limits)
        graph, tower = bundle.checked_graph(self.variant), self.tower
        wanted = dataclasses.replace(
            device_options or DeviceOptions(), precision=self.variant.precision
        )

        def opened(threads: int, options: DeviceOptions = wanted) -> Session:
            output, inputs = tower.embedding_output, tower.inputs
            return graph.use(
                lambda path: open_session(path, target, output, options, inputs, threads)
            )

        self._open = opened
        self._graphs: DeviceOptions | None = None
        if target.provider.records_graphs and len(target.devices) == 1:
            self._graphs = _recording(wanted, self.variant)
        self.on_host = target.provider.on_host
        self.checks_batches = target.provider.checks_batches
        self._cache_directory: Path | None = None
        self._parts = self._start(self._open(self.tuning.intra_op_threads or 1))
        self._process = os.getpid()
        if self.on_host and self.tower.modality == "text":
            find_vocabulary(cast("TextPreprocessor", self.preprocess), self._parts.session)

    @staticmethod
    def _measured(variant: Variant, target: Target) -> Tuning:
        """What was measured of a variant on a target, where that is known."""
        if target.provider.on_host:
            facts = provider_facts(variant, target.provider)
            return load_tuning(variant, more=facts) if target.provider.tuned else Tuning()
        device = target.device_model if target.provider.tuned else None
        return Tuning() if device is None else load_tuning(variant, device)

    def _start(self, session: Session) -> Parts:
        """Make what belongs to this process and no other."""
        return Parts(
            self.tower,
            self.variant,
            self.shape,
            self.preprocess,
            session,
            Workers(self.tuning.workers or session.workers or available_cores()),
            # Loaders have their own: one that waits for a window's batches would stop the next.
            Workers(self.tuning.workers or available_cores()),
            self._all_cores_session() if self.on_host else self._graphs_session(session),
            self._open_cache(),
        )

    def _adapt(self) -> Parts:
        """Start again where the process was forked since: a fork takes no threads along."""
        if self._process != os.getpid():
            native.refuse_forked_device(self.provider)
            with native.adapting():
                if self._process != os.getpid():
                    threads = self.tuning.intra_op_threads or 1
                    session = self._parts.session.in_child() or self._open(threads)
                    self._parts = self._start(session)
                    self._process = os.getpid()
        return self._parts

    def stream(
        self,
        items: Iterable[T],
        raw_of: Callable[[T], object],
        options: EmbedOptions = DEFAULTS,
        *,
        prompt: str = "",
        truncation: Truncation | None = None,
        on_error: OnError[T] | None = None,
        all_cores: bool = True,
        group_of: Callable[[T], Hashable] | None = None,
        held_bytes: Callable[[T], int] | None = None,
    ) -> Iterator[tuple[list[T], Vectors]]:
        """Yield the items in input order, a window at a time, with vectors float32 ``[n, dim]``.

        Of a bundle with a grid, vectors are ``[n, patches, dim]``.

        Memory is bounded by two windows, whatever the length of ``items``. Equal texts of a window
        are computed once. A list of one item is computed by the caller's own thread.

        Args:
            items: any objects.
            raw_of: Gives what to embed of an item.
            options: ``batch_tokens``, ``on_too_long`` and ``dedupe`` are followed here.
            prompt: the text before every text.
            truncation: counts what was cut.
            on_error: takes each item that cannot be embedded, which is then left out.
            all_cores: whether a stream of less than one batch may run on all cores.
            group_of: Gives an item's group. A window ends where it changes, nothing is remembered
                beyond, and batches do not depend on the number of workers. So the vectors of a
                group depend on its items alone, to the last bit.
            held_bytes: Gives the bytes that an item holds besides what is embedded; a window
                has few such items.

        Raises:
            InputError: an item that cannot be embedded, without ``on_error``; ``index`` counts
                from the stream's start.
        """
        parts = self._adapt()
        stream = Stream(
            parts,
            raw_of,
            options,
            batch_tokens=options.batch_tokens or self.batch_tokens,
            prompt=prompt,
            truncation=truncation or Truncation(),
            on_error=on_error,
            all_cores=all_cores,
            group_of=group_of,
            held_bytes=held_bytes,
        )
        return stream.run(items)

    @property
    def longest_padded(self) -> int | None:
        """Length of the longest item that may share a batch with other lengths; None for any."""
        return self._parts.longest_padded

    @property
    def batch_tokens(self) -> int:
        """Most positions of a batch, unless a stream is asked for another number."""
        return self.tuning.batch_tokens or self._parts.session.batch_tokens or BATCH_TOKENS

    @property
    def workers(self) -> int:
        """Batches that run at the same time."""
        return self._parts.workers.count

    def window_sizes(self, total: int) -> Iterator[int]:
        """Most items of each window of a list."""
        return self._parts.window_sizes(total)

    def vectors(self, items: Sequence[object], prompt: str = "") -> Vectors:
        """Vectors of a short list, float32 ``[n, dim]``, from the session that long ones use."""
        stream = self.stream(items, lambda item: item, prompt=prompt, all_cores=False)
        parts = [part for _, part in stream]
        return np.concatenate([np.empty((0, *self.shape), np.float32), *parts])

    def batch_vectors(self, items: Sequence[object], prompt: str = "") -> Vectors:
        """Vectors of items as one batch, however much padding that is; float32 ``[n, dim]``."""
        parts = self._adapt()
        loaded = [self.preprocess.load(item) for item in items]
        encoded = self.preprocess.encode(loaded, prompt, "truncate")
        for error in encoded.errors.values():
            raise error
        constants = self.preprocess.constants(prompt)
        feeds = {**encoded.feeds(np.arange(len(items))), **constants}
        return parts.run(parts.session, feeds, len(items))

    def use_cache(self, directory: Path) -> None:
        """Look items up on disk from now on, and keep those that are new there.

        Raises:
            DataError: the directory cannot be used.
        """
        self._cache_directory = directory
        self._parts = self._parts._replace(cache=self._open_cache())

    def wait(self) -> None:
        """Wait until a session that is being opened in the background is open."""
        if self._parts.all_cores is not None:
            self._parts.all_cores.wait()

    def close(self) -> None:
        """End the worker threads; in a forked process, where there are none, do nothing."""
        if self._process != os.getpid():
            return
        self._parts.workers.close()
        self._parts.loaders.close()
        self.wait()
        if self._parts.cache is not None:
            self._parts.cache.close()

    def _open_cache(self) -> DiskCache | None:
        if self._cache_directory is None:
            return None
        from fmrt.embedding.disk_cache import DiskCache  # start-up stays quick

        provider = self.provider.partition(":")[0]
        output = self.tower.embedding_output
        return DiskCache(self._cache_directory, self.variant, provider, output, self.shape)

    def _all_cores_session(self) -> AllCores | None:
        """A session for few and short items, where it has more threads than the other."""
        threads = self.tuning.query_threads or default_query_threads()
        if threads <= (self.tuning.intra_op_threads or 1) or not _fits_twice(self.variant):
            return None
        return AllCores(partial(self._open, threads))

    def _graphs_session(self, plain: Session) -> AllCores | None:
        """A session for few items that records CUDA graphs, where they may be."""
        if self._graphs is None:
            return None
        from fmrt.session.graphed import Graphed  # start-up stays quick

        return AllCores(partial(Graphed, partial(self._open, 1, self._graphs), plain))


def _recording(wanted: DeviceOptions, variant: Variant) -> DeviceOptions | None:
    """Options of a second session that records CUDA graphs; None where the user's exclude it."""
    unasked = wanted.cuda_graphs is None and wanted.memory_limit is None
    if not unasked or variant.packed or not _fits_twice(variant):
        return None
    return dataclasses.replace(wanted, cuda_graphs=True)


def _fits_twice(variant: Variant) -> bool:
    weights = variant.size + sum(record.size for record in variant.external.values())
    return weights <= MOST_WEIGHTS_TWICE
