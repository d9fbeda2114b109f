"""The public API: an `Embedder` turns texts, images or sounds into vectors with a bundle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Manifest, Variant
from fmrt.embed_options import DEFAULTS, EmbedOptions, takes_options
from fmrt.embedding.choice import chosen
from fmrt.embedding.engine import Engine
from fmrt.embedding.items import items_of
from fmrt.embedding.request import Request, for_texts, make_request
from fmrt.embedding.stream import OnError, Truncation
from fmrt.embedding.tuning import Tuning
from fmrt.encode import DOCUMENT, QUERY, Encoding
from fmrt.errors import ClosedError, OptionError, ProcessError, TruncationWarning
from fmrt.options import UNNAMED, checked
from fmrt.session import CPU, DeviceOptions
from fmrt.system import native
from fmrt.system.limits import DEFAULT, Limits
from fmrt.system.progress import Progress
from fmrt.system.user_warning import warn_user
from fmrt.verify import LOW_QUICK_TOKENS, QUICK_TOKENS, check_quick

if TYPE_CHECKING:
    from fmrt.preprocess.text import TextPreprocessor

T = TypeVar("T")


class Embedder(Encoding):
    """Embeds with a bundle, on onnxruntime alone; safe to call from several threads.

    On the CPU it works in a forked process too, where it shares the weights with its parent; what
    is being embedded at the fork goes on in the parent alone. It cannot be pickled.

    What it embeds depends on the bundle. Texts are strings. Images and sounds are paths, the bytes
    of a file, or arrays (uint8 ``[height, width, 3]``; float32 ``[samples]``); Pillow images too. A
    bundle with two towers takes strings for texts and the rest for its other modality.

    Args:
        bundle: The directory that ``fmrt export`` wrote, or the ``owner/name`` of one on the
            Hugging Face hub, of which only the files of the chosen variant are downloaded.
        variant: A name that ``fmrt info`` lists; default the provider's own fp32 graph.
        provider: Execution provider: ``cpu``, ``openvino``, ``cuda``, ``tensorrt``, a device of
            these as ``cuda:1``, several as ``cuda:0,1`` or ``cuda:all``, or ``auto`` for the best
            one there is, see docs/cuda.md. With neither a provider nor a variant, it is what
            ``fmrt tune`` chose for this bundle on this machine, and else the CPU.
        workers: Batches that run at the same time; default as ``fmrt tune`` found, else one a core
            this process may use (CPU affinity and cgroup quota), or two a GPU.
        intra_op_threads: Threads inside each operator of a batch on the CPU; default as ``fmrt
            tune`` found, else 1. With neither of the two given, few and short items have all cores
            to themselves, in a second session that is opened when they come repeatedly.
        modality: Load only the tower of ``text``, ``image`` or ``audio``; default all.
        verify: Check a few of the bundle's reference items at load, and refuse it when its vectors
            are not PyTorch's.
        gpu_mem_limit: Most bytes to take of each GPU's memory; default all of it. A batch that does
            not fit is split, with a warning.
        cuda_graphs: Record CUDA graphs of images and of few short texts. True: in the only session,
            one batch at a time. Default: on one GPU, in a second session for few items, which is
            opened when they come repeatedly; one warning says where that is not possible. False:
            never.
        cache: A directory that keeps vectors between runs: an item whose vector is there is not
            computed again, see docs/jobs.md.
        max_item_bytes: Most memory to take for an item while it is decoded, and for all that are
            decoded at the same time; a larger one is an error, unless its file has a thirty-second
            of that. Default 200 MB.
        low_memory: Take little memory: one worker unless ``workers`` says otherwise, one session,
            small batches, and no memory kept between them. The C library of the whole process
            then keeps no freed memory either. See docs/edge.md.
        sha256: The SHA-256 of the bundle's manifest, as ``fmrt info`` prints it; another
            bundle is refused.
        revision: Branch, tag or commit of a bundle on the hub.

    Raises:
        BundleError: Not a bundle, corrupt, from a newer fmrt, or with wrong vectors.
        ProviderError: The provider is unknown or cannot be had.

    Example:
        >>> with Embedder("bundle/") as embedder:  # doctest: +SKIP
        ...     vectors = embedder.embed(["a text", "another"])
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        variant: str | None = None,
        provider: str = UNNAMED,
        workers: int | None = None,
        intra_op_threads: int | None = None,
        modality: str | None = None,
        verify: bool = True,
        gpu_mem_limit: int | None = None,
        cuda_graphs: bool | None = None,
        cache: str | Path | None = None,
        max_item_bytes: int = DEFAULT.item_bytes,
        low_memory: bool = False,
        sha256: str | None = None,
        revision: str | None = None,
    ) -> None:
        checked(variant=variant, provider=provider, modality=modality)
        verify, cuda_graphs, cache = checked(verify=verify, cuda_graphs=cuda_graphs, cache=cache)
        workers, intra_op_threads, gpu_mem_limit = checked(
            workers=workers, intra_op_threads=intra_op_threads, gpu_mem_limit=gpu_mem_limit
        )
        (low_memory,) = checked(low_memory=low_memory)
        if low_memory:
            native.return_memory()
            provider = CPU.name if provider == UNNAMED else provider
        device_options = DeviceOptions(gpu_mem_limit, cuda_graphs, low_memory=low_memory)
        tuning = Tuning.chosen(workers, intra_op_threads, low_memory=low_memory)
        (item_bytes,) = checked(max_item_bytes=max_item_bytes)
        self._limits = limits = Limits(item_bytes)
        self._bundle = Bundle.opened(bundle, sha256, revision)
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        # Queries come one by one, mostly with the same options.
        self._latest: Request | None = None
        try:
            for name in self.manifest.modalities if modality is None else (modality,):
                one, where = chosen(self._bundle, variant, provider, name)
                engine = Engine(self._bundle, one, where, name, device_options, tuning, limits)
                self._engines[name] = engine
                if verify:
                    tokens = LOW_QUICK_TOKENS if low_memory else QUICK_TOKENS
                    check_quick(engine, self._bundle, tokens)
                if cache is not None:
                    engine.use_cache(Path(cache))
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        revision: str | None = None,
        variant: str | None = None,
        provider: str = UNNAMED,
        sha256: str | None = None,
        **options: Any,
    ) -> Embedder:
        """Load a bundle from a local directory or the Hugging Face hub, as the constructor does.

        Raises:
            BundleNotFoundError: No such directory, and the hub does not give such a bundle.
        """
        return cls(
            model,
            revision=revision,
            variant=variant,
            provider=provider,
            sha256=sha256,
            **options,
        )

    @takes_options
    def embed(
        self,
        items: Iterable[Any],
        options: EmbedOptions = DEFAULTS,
        **changes: Any,
    ) -> NDArray[Any]:
        """Embed items; the result's rows are in input order.

        Args:
            items: Texts, images or sounds, in any iterable that has an order: a list, a
                generator, a NumPy array, a column of pandas, polars or pyarrow. None gives an
                array of no rows.
            options: How to embed; see `EmbedOptions`.
            changes: Options by their names, instead of those of ``options``.

        Returns:
            float32 ``[n, dim]``; another dtype or width as ``precision`` says. A bundle exported
            with output ``patch`` gives ``[n, patches, dim]``, an image's patches row by row of the
            manifest's grid, and each patch is cut, normalized and converted as a vector.

        Raises:
            InputError: A text that is no string, or holds NUL or lone surrogates; an image or
                sound that cannot be read.
            TextTooLongError: Too many tokens under ``on_too_long="error"``.
            OptionError: An option that makes no sense for this model.
        """
        items = items_of(items)
        if not isinstance(items, list | tuple):
            items = list(items)
        options = options.but(changes)
        engine, request = self._request(options, items[:1])
        shape, dtype = request.tower.shape(request.post.width), request.post.precision.dtype
        out = np.empty((len(items), *shape), dtype)
        done = 0
        with Progress(len(items), options.show_progress, engine.preprocess.unit) as progress:
            for window, vectors in self._vectors(engine, request, items, _same):
                out[done : done + len(window)] = vectors
                done += len(window)
                progress.advance(len(window))
        return out

    @takes_options
    def embed_iter(
        self,
        items: Iterable[Any],
        options: EmbedOptions = DEFAULTS,
        **changes: Any,
    ) -> Iterator[NDArray[Any]]:
        """Yield a vector per item, in input order, from an iterable of any length.

        Memory is bounded. Arguments and errors are those of `embed`; the options are checked
        before the first item is read, and a truncation warning comes at the end. With several
        towers and no ``modality``, items are texts.
        """
        items = items_of(items)
        engine, request = self._request(options.but(changes), ())
        stream = self._vectors(engine, request, items, _same)
        return (vector for _, vectors in stream for vector in vectors)

    @takes_options
    def embed_items(
        self,
        items: Iterable[T],
        raw_of: Callable[[T], object],
        options: EmbedOptions = DEFAULTS,
        *,
        on_error: OnError[T] | None = None,
        group_of: Callable[[T], Hashable] | None = None,
        held_bytes: Callable[[T], int] | None = None,
        **changes: Any,
    ) -> Iterator[tuple[list[T], NDArray[Any]]]:
        """Yield items with their vectors as by `embed`, some thousand at a time, in input order.

        For streams that carry more than what is embedded; ``raw_of`` gives an item's text, image
        or sound. ``on_error`` takes an item that cannot be embedded, with the `InputError`; the
        item is then left out, and the stream goes on. Where ``group_of`` an item changes, a group
        ends: the vectors of a group depend on its items alone, to the last bit. ``held_bytes`` of
        an item are those that it holds in memory beside what is embedded; so many items at a time
        are held that they stay few. Other arguments and errors are those of `embed`.
        """
        checked(raw_of=raw_of, on_error=on_error, group_of=group_of, held_bytes=held_bytes)
        items = items_of(items)
        engine, request = self._request(options.but(changes), ())
        return self._vectors(engine, request, items, raw_of, on_error, group_of, held_bytes)

    @takes_options
    def embed_query(
        self,
        text: str,
        options: EmbedOptions = DEFAULTS,
        **changes: Any,
    ) -> NDArray[Any]:
        """Embed one search query, ``[dim]``, with the model's ``query`` prompt if it has one.

        Arguments and errors are those of `embed`.
        """
        options = for_texts(self._bundle, options, changes, QUERY)
        return self.embed([text], options)[0]  # type: ignore[no-any-return]

    @takes_options
    def embed_documents(
        self,
        texts: Iterable[str],
        options: EmbedOptions = DEFAULTS,
        **changes: Any,
    ) -> NDArray[Any]:
        """Embed documents, ``[n, dim]``, with the model's ``document`` prompt if it has one.

        ``passage`` and ``corpus`` are taken as other names for it, in that order. Arguments and
        errors are those of `embed`.
        """
        return self.embed(texts, for_texts(self._bundle, options, changes, DOCUMENT))

    def token_count(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> int:
        """Tokens of a text, or of several together, with prompt and special tokens, before any cut.

        Args:
            texts: A string, or what `embed` takes.
            prompt_name: The name of a prompt, as in `embed`.
            prompt: The text of a prompt, as in `embed`.

        Raises:
            InputError: An item is no text that can be embedded, as in `embed`.
        """
        options = EmbedOptions(modality="text", prompt_name=prompt_name, prompt=prompt)
        engine, request = self._request(options, ())
        items = [texts] if isinstance(texts, str) else items_of(texts)
        return cast("TextPreprocessor", engine.preprocess).token_count(items, request.prompt)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.manifest.dim

    @property
    def max_length(self) -> int:
        """Most tokens of a text, special tokens included."""
        return self.manifest.text.max_length

    @property
    def batch_tokens(self) -> int:
        """Most tokens (patches, frames) of a batch, unless a call says otherwise."""
        return self.batch_tokens_of(None)

    def batch_tokens_of(self, modality: str | None) -> int:
        """The same for a modality.

        Raises:
            OptionError: the tower of this modality is not loaded, or there is none.
        """
        return self._engine(modality, ()).batch_tokens

    @property
    def bundle(self) -> Bundle:
        """The bundle that is loaded."""
        return self._bundle

    @property
    def max_item_bytes(self) -> int:
        """Most memory to take for an item while it is decoded."""
        return self._limits.item_bytes

    def variant_of(self, modality: str) -> Variant:
        """The variant that embeds a modality.

        Raises:
            OptionError: the tower of this modality is not loaded, or there is none.
        """
        return self._engine(modality, ()).variant

    @property
    def variant(self) -> str:
        """Name of the variant that is loaded."""
        return self._engine(None, ()).variant.name

    @property
    def provider(self) -> str:
        """Execution provider that the session runs on."""
        return self._engine(None, ()).provider

    def close(self) -> None:
        """Free the session and end the worker threads; a closed embedder embeds no more.

        Streams that still run, in this thread or another, raise `ClosedError` at their next item.
        """
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise ProcessError(
            f"an Embedder cannot be pickled or copied, as its session belongs to this process: "
            f"make one in each process by Embedder({str(self._bundle.path)!r}), for instance in "
            "the initializer of a Pool"
        )

    def __repr__(self) -> str:
        modalities = "+".join(self.manifest.modalities)
        return f"Embedder({str(self._bundle.path)!r}, {modalities}, dim={self.dim})"

    def _engine(self, modality: str | None, first: Sequence[object]) -> Engine:
        """The tower for items of which ``first`` holds the first, if that is known."""
        engines = self._engines
        if not engines:
            raise ClosedError
        if modality is None and len(engines) == 1:
            return next(iter(engines.values()))
        checked(modality=modality)
        if modality is None and first and not isinstance(first[0], str):
            modality = next((name for name in engines if name != "text"), None)
        modality = self.manifest.tower(modality).modality
        if modality not in engines:
            raise OptionError(f"this Embedder was opened for {', '.join(engines)} alone")
        return engines[modality]

    def _request(self, options: EmbedOptions, first: Sequence[object]) -> tuple[Engine, Request]:
        """The engine for items of which ``first`` holds the first, and what it is asked for."""
        engine = self._engine(options.modality, first)
        latest = self._latest
        if latest is None or latest.options is not options or latest.tower is not engine.tower:
            latest = make_request(self._bundle, options, engine.tower.modality)
            self._latest = latest
        return engine, latest

    def _vectors(
        self,
        engine: Engine,
        request: Request,
        items: Iterable[T],
        raw_of: Callable[[T], object],
        on_error: OnError[T] | None = None,
        group_of: Callable[[T], Hashable] | None = None,
        held_bytes: Callable[[T], int] | None = None,
    ) -> Iterator[tuple[list[T], NDArray[Any]]]:
        truncation = Truncation()
        stream = engine.stream(
            items,
            raw_of,
            request.options,
            prompt=request.prompt,
            truncation=truncation,
            on_error=on_error,
            group_of=group_of,
            held_bytes=held_bytes,
        )

        def vectors() -> Iterator[tuple[list[T], NDArray[Any]]]:
            for window, raw in stream:
                yield window, request.post(raw)
            if truncation.cut and request.options.on_too_long == "truncate-and-warn":
                warn_user(truncation.message(engine.preprocess), TruncationWarning)

        return vectors()


def _same(item: object) -> object:
    return item
