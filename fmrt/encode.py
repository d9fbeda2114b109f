"""Embedding under the names that sentence-transformers' users know, as methods of an Embedder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Vectors
from fmrt.bundle.bundle import Bundle
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.embedding.request import first_prompt
from fmrt.errors import InputError, OptionError, quoted
from fmrt.options import MOST_TOKENS, flag, optional, whole

CONFIGURATION = "config_sentence_transformers.json"
QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")
# Its arguments that have one meaning here: the value that they may have, and what to do instead.
FIXED: dict[str, tuple[object, str]] = {
    "output_value": ("sentence_embedding", "a bundle holds no vectors of tokens"),
    "convert_to_numpy": (True, "vectors are a NumPy array"),
    "convert_to_tensor": (False, "vectors are a NumPy array; torch.from_numpy makes a tensor"),
    "device": (None, "choose provider= when you make the Embedder"),
    "pool": (None, "one process uses all cores; see provider='cuda:all' for several GPUs"),
    "chunk_size": (None, "one process uses all cores"),
}


class Embeds(Protocol):
    """What `Encoding` needs of an Embedder."""

    _bundle: Bundle

    def embed(self, items: object, options: EmbedOptions = DEFAULTS) -> NDArray[Any]:
        """Vectors of items."""

    def encode(self, inputs: object, **options: object) -> NDArray[Any]:
        """Vectors of items, or of one."""


class Encoding:
    """Methods of sentence-transformers' names, arguments and meaning."""

    def encode(
        self: Embeds,
        inputs: object,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        precision: str = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **others: Any,
    ) -> NDArray[Any]:
        """Embed as sentence-transformers does: ``[dim]`` for one item, else ``[n, dim]``.

        Args:
            inputs: A string, a path or bytes, or what `embed` takes.
            prompt_name: One of the model's prompts; default the model's own default.
            prompt: A prompt's text, instead of ``prompt_name``.
            batch_size: Without effect on the result, and none here: batches are bounded in tokens,
                see ``batch_tokens`` of `embed`.
            show_progress_bar: Default only on a terminal.
            precision: ``float32``, ``int8``, ``uint8`` (with one scale for the bundle, whatever
                the batch), ``binary`` (sign bits as int8) or ``ubinary`` (as uint8).
            normalize_embeddings: Bring vectors to unit length; False leaves them as the model does.
            truncate_dim: Keep this many leading dimensions.
            others: Sentence-transformers' other arguments, with the values that `FIXED` allows.

        Raises:
            OptionError: An argument that has no such meaning here.
            InputError: As of `embed`.
        """
        check_fixed(others)
        optional(whole(MOST_TOKENS))("batch_size", batch_size)
        alone = isinstance(inputs, str | bytes | os.PathLike)
        options = EmbedOptions(
            prompt_name=prompt_name,
            prompt=prompt,
            truncate_dim=truncate_dim,
            normalize=flag("normalize_embeddings", normalize_embeddings) or None,
            precision="binary" if precision == "ubinary" else precision,
            show_progress=optional(flag)("show_progress_bar", show_progress_bar),
        )
        vectors = self.embed([inputs] if alone else inputs, options)
        if precision == "binary":
            vectors = (vectors ^ 0x80).view(np.int8)  # minus 128
        return vectors[0] if alone else vectors

    def encode_query(self: Embeds, inputs: object, **options: object) -> NDArray[Any]:
        """Embed queries as `encode` does, with the model's ``query`` prompt if it has one."""
        return self.encode(inputs, **_prompted(self._bundle, QUERY, options))

    def encode_document(self: Embeds, inputs: object, **options: object) -> NDArray[Any]:
        """Embed documents as `encode` does, with the prompt that `embed_documents` takes."""
        return self.encode(inputs, **_prompted(self._bundle, DOCUMENT, options))

    def similarity(self: Embeds, embeddings1: object, embeddings2: object) -> Vectors:
        """Similarity of each vector with each, float32 ``[n, m]``, by the model's own function.

        That is cosine unless the model says ``dot``, ``euclidean`` or ``manhattan``; of the last
        two, distances below zero.

        Args:
            embeddings1: ``[n, dim]``, or ``[dim]`` for one; floating-point or int8.
            embeddings2: ``[m, dim]``, likewise.

        Raises:
            InputError: No such arrays, or of different widths.
        """
        first, second = _matrix(embeddings1, 1), _matrix(embeddings2, 2)
        if first.shape[1] != second.shape[1]:
            raise InputError(
                f"vectors of {first.shape[1]} and of {second.shape[1]} dimensions have no "
                "similarity; embed both with the same bundle and truncate_dim"
            )
        return SIMILARITIES[_function(self._bundle)](first, second)


def _prompted(bundle: Bundle, names: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Options of `Encoding.encode` with the first of some prompts, where they name none."""
    if options.get("prompt") is None and options.get("prompt_name") is None:
        return {**options, "prompt_name": first_prompt(bundle, names)}
    return options


def check_fixed(others: dict[str, Any]) -> None:
    """Raise unless arguments have the only value that they may have here.

    Raises:
        OptionError: One has another.
        TypeError: There is no such argument.
    """
    for name, value in others.items():
        if name not in FIXED:
            raise TypeError(f"encode() got an unexpected keyword argument {name!r}")
        allowed, hint = FIXED[name]
        if value is not allowed and not (isinstance(allowed, str) and value == allowed):
            raise OptionError(f"{name}={quoted(value)} is not supported: {hint}")


def _matrix(vectors: object, which: int) -> Vectors:
    try:
        array = np.atleast_2d(np.asarray(vectors))
    except ValueError as e:
        raise InputError(f"embeddings{which} are no array: {e}") from None
    if array.ndim != 2 or (array.dtype.kind != "f" and array.dtype not in (np.int8, np.int64)):  # noqa: PLR2004
        raise InputError(
            f"embeddings{which}={quoted(vectors)} are {array.dtype} {list(array.shape)}; give "
            "float or int8 vectors [n, dim]"
        )
    return array.astype(np.float32)


def _function(bundle: Bundle) -> str:
    """Name of the similarity that the model's own configuration asks for."""
    if CONFIGURATION not in bundle.manifest.files:
        return "cosine"
    configuration = json.loads(bundle.file(CONFIGURATION).read_text(encoding="utf-8"))
    name = configuration.get("similarity_fn_name") or "cosine"
    if name not in SIMILARITIES:
        raise OptionError(f"the model asks for similarity {name!r}, which is unknown")
    return str(name)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _cosine(first: Vectors, second: Vectors) -> Vectors:
    return _unit(first) @ _unit(second).T


def _dot(first: Vectors, second: Vectors) -> Vectors:
    return first @ second.T


def _distances(order: int) -> Callable[[Vectors, Vectors], Vectors]:
    def below_zero(first: Vectors, second: Vectors) -> Vectors:
        out = np.empty((len(first), len(second)), np.float32)
        for row, vector in enumerate(first):
            out[row] = -np.linalg.norm(second - vector, ord=order, axis=1)
        return out

    return below_zero


SIMILARITIES: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _distances(2),
    "manhattan": _distances(1),
}
