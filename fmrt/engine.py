"""Texts to vectors in input order: tokenizer, scheduler and session joined into one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle import Bundle
from fmrt.cores import available_cores
from fmrt.errors import InputError
from fmrt.manifest import Manifest, Variant
from fmrt.preprocess.text import TextPreprocessor, Tokens, check_text
from fmrt.scheduler import BATCH_TOKENS, Workers, plan_batches, windows
from fmrt.session import Session, resolve_provider

T = TypeVar("T")
Vectors = NDArray[np.float32]


@dataclass
class Truncation:
    """Counts what was cut in one stream.

    Attributes:
        texts: texts seen.
        cut: texts that were longer than ``max_length`` tokens.
        longest: tokens of the longest text before it was cut.
    """

    texts: int = 0
    cut: int = 0
    longest: int = 0

    def add(self, tokens: Tokens) -> None:
        """Count one window."""
        self.texts += len(tokens.lengths)
        self.cut += int((tokens.untruncated > tokens.lengths).sum())
        self.longest = max(self.longest, int(tokens.untruncated.max(initial=0)))

    def message(self, max_length: int) -> str:
        """One line that says how many texts were cut and how long they were."""
        return (
            f"{self.cut:,} of {self.texts:,} texts had more than {max_length:,} tokens (the "
            f"longest {self.longest:,}) and were truncated"
        )


class Engine:
    """A loaded variant of a bundle.

    Args:
        bundle: where the files are; each is checked against its hash.
        variant: a name, or None for the provider's own fp32 one.
        provider: ``cpu``, ``cuda`` or ``auto``.
        workers: parallel batches; default a worker a core this process may use.

    Raises:
        BundleError: missing, corrupt, or no such variant.
        ProviderError: the provider cannot be had.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str | None = None,
        provider: str = "cpu",
        workers: int | None = None,
    ) -> None:
        chosen = resolve_provider(provider)
        self.manifest: Manifest = bundle.manifest
        self.variant: Variant = bundle.variant(variant, chosen.name)
        self.provider = chosen.name
        self._preprocess = TextPreprocessor(
            bundle.file("tokenizer.json"),
            self.manifest.max_length,
            self.manifest.pad_token_id,
            self.manifest.truncation_side,
        )
        self._session = Session(bundle.graph(self.variant), chosen, self.manifest.embedding_output)
        self._workers = Workers(workers or available_cores())

    def stream(
        self,
        items: Iterable[T],
        text_of: Callable[[T], str],
        *,
        prompt: str = "",
        on_too_long: str = "truncate",
        batch_tokens: int | None = None,
        truncation: Truncation | None = None,
    ) -> Iterator[tuple[list[T], Vectors]]:
        """Yield the items in input order, a window at a time, with vectors float32 ``[n, dim]``.

        Memory is bounded by two windows, whatever the length of ``items``.

        Raises:
            InputError: an item that cannot be embedded; ``index`` counts from the stream's start.
        """
        count = truncation if truncation is not None else Truncation()
        prepare = partial(self._prepare, text_of, prompt, on_too_long, batch_tokens or BATCH_TOKENS)
        jobs = (
            prepare(window, count) for window in windows(items, lambda item: len(text_of(item)))
        )
        return self._workers.run(jobs)

    def vectors(self, texts: list[str], prompt: str = "") -> Vectors:
        """Vectors of a short list, float32 ``[n, dim]``."""
        parts = [part for _, part in self.stream(texts, str, prompt=prompt)]
        return np.concatenate([np.empty((0, self.manifest.dim), np.float32), *parts])

    def close(self) -> None:
        """End the worker threads."""
        self._workers.close()

    def _prepare(
        self,
        text_of: Callable[[T], str],
        prompt: str,
        on_too_long: str,
        batch_tokens: int,
        window: list[T],
        count: Truncation,
    ) -> tuple[tuple[list[T], Vectors], list[Callable[[], None]]]:
        try:
            tokens = self._preprocess([text_of(i) for i in window], prompt, on_too_long)
        except InputError as e:
            position = None if e.index is None else e.index + count.texts
            raise type(e)(e.reason, position) from None
        count.add(tokens)
        out = np.empty((len(window), self.manifest.dim), np.float32)
        starts = np.cumsum(tokens.lengths) - tokens.lengths
        constant: dict[str, NDArray[np.int64]] = {}
        if not self.manifest.include_prompt:
            constant["prompt_length"] = np.array([self._preprocess.prompt_length(prompt)])
        calls: list[Callable[[], None]] = [
            partial(self._run, tokens, rows, starts, constant, out)
            for rows in plan_batches(tokens.lengths, batch_tokens)
        ]
        return (window, out), calls

    def _run(
        self,
        tokens: Tokens,
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        constant: dict[str, NDArray[np.int64]],
        out: Vectors,
    ) -> None:
        out[rows] = self._session.run({**self._preprocess.pad(tokens, rows, starts), **constant})


def checked(items: Iterable[T], text_of: Callable[[T], str]) -> Iterator[T]:
    """Pass items on, or raise `InputError` with the position of the first bad text."""
    for index, item in enumerate(items):
        try:
            check_text(item if text_of is str else text_of(item))
        except InputError as e:
            raise InputError(e.reason, index) from None
        yield item
