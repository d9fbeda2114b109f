"""A model as functions of the package take it: a bundle's place, a bundle, or an `Embedder`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Variant
from fmrt.embed_options import EmbedOptions, takes_options
from fmrt.embedder import Embedder
from fmrt.embedding.choice import chosen
from fmrt.errors import OptionError
from fmrt.options import OPTIONS, UNNAMED
from fmrt.session import CPU, resolve_provider
from fmrt.system.limits import DEFAULT

F = TypeVar("F", bound=Callable[..., Any])
Given = str | Path | Bundle | Embedder
_LOADING = frozenset(inspect.signature(Embedder).parameters) - {"bundle", "modality"}


class Model:
    """A model whose graph is not loaded yet, unless it was given as an `Embedder`.

    Args:
        given: A bundle's directory or its id on the hub, a bundle, or an `Embedder`.
        arguments: The arguments of `Embedder`, by name, and options of embedding, which are left
            alone.

    Attributes:
        bundle: The bundle of the model.
        max_item_bytes: Most memory of an item while it is decoded.

    Raises:
        ProviderError: The provider is unknown or cannot be had.
        BundleError: There is no such bundle or variant.
        OptionError: An argument is for an `Embedder` that was given.
    """

    def __init__(self, given: Given, arguments: Mapping[str, Any]) -> None:
        own: dict[str, Any] = {
            name: OPTIONS[name](name, value)
            for name, value in arguments.items()
            if name in _LOADING
        }
        self._ready, self._own = None, own
        self.max_item_bytes: int = own.get("max_item_bytes", DEFAULT.item_bytes)
        if isinstance(given, Embedder):
            if own:
                raise OptionError(f"{min(own)} is for a bundle, and an Embedder was given")
            self._ready = given
            self.bundle, self._provider = given.bundle, given.provider
            self.max_item_bytes = given.max_item_bytes
            return
        pin, revision = own.pop("sha256", None), own.pop("revision", None)
        variant = own.get("variant")
        self._provider = own.get("provider", UNNAMED)
        if own.get("low_memory") and self._provider == UNNAMED:
            self._provider = CPU.name
        target = resolve_provider(self._provider)
        if self._provider != UNNAMED:
            self._provider = target.spec
        if isinstance(given, Bundle):
            self.bundle = Bundle.opened(given, pin, revision)
        else:
            self.bundle = Bundle.from_pretrained(str(given), revision, variant, target.name, pin)
        self.bundle.variant(variant, target.name)

    def variant(self, modality: str) -> Variant:
        """The graph that embeds a modality."""
        if self._ready is not None:
            return self._ready.variant_of(modality)
        variant, provider = self._chosen(modality)
        return self.bundle.variant(variant, provider.partition(":")[0], modality)

    def provider(self, modality: str) -> str:
        """The execution provider that embeds a modality, with ``auto`` resolved."""
        return self._provider if self._ready is not None else self._chosen(modality)[1]

    def _chosen(self, modality: str) -> tuple[str | None, str]:
        return chosen(self.bundle, self._own.get("variant"), self._provider, modality)

    @contextmanager
    def embedder(self, modality: str | None = None) -> Iterator[Embedder]:
        """The model, loaded; closed in the end unless it was given so.

        Args:
            modality: Load only the tower of this one.
        """
        if self._ready is not None:
            yield self._ready
            return
        arguments = {**self._own, "provider": self._provider, "modality": modality}
        with Embedder(self.bundle, **arguments) as embedder:
            yield embedder


def options_in(options: EmbedOptions, arguments: Mapping[str, Any]) -> EmbedOptions:
    """Options, changed by those among arguments that are not of `Embedder`.

    Raises:
        OptionError: A value is wrong.
        TypeError: There is no argument of that name.
    """
    return options.but({n: value for n, value in arguments.items() if n not in _LOADING})


def takes_model(function: F) -> F:
    """Show arguments of `Embedder` and options of embedding in a function's signature."""
    return partial(takes_options, also=Embedder)(function)
