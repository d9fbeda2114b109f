"""The PyTorch model of a text bundle, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.export.choices import Overrides
from fmrt.export.loading.fetching import fetch
from fmrt.export.quiet import quiet
from fmrt.export.text.source import load_text_source

Encode = Callable[[Sequence[object], str], NDArray[np.float32]]


def text_model(name: str, revision: str | None, max_length: int) -> Encode:
    """What gives the vectors of texts with a prompt, ``[n, dim]``, as sentence-transformers does.

    Args:
        name: The directory or hub id.
        revision: The commit of a hub model.
        max_length: The largest number of tokens of a text.

    Raises:
        ExportError: There is no such model, or it is not a model of texts.
    """
    with quiet():
        source = load_text_source(fetch(name, revision), "cpu", Overrides(max_length=max_length))

    def encode(texts: Sequence[object], prompt: str) -> NDArray[np.float32]:
        with quiet():
            found = source.model.encode(
                list(map(str, texts)), prompt=prompt, show_progress_bar=False
            )
        vectors: NDArray[np.float32] = np.asarray(found, np.float32)
        return vectors

    return encode
