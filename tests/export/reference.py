"""PyTorch with the runtime's interface, so that one test body runs both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from fmrt.export.quiet import quiet


class TorchEmbedder:
    """A model directory in sentence-transformers, one text at a time: no batch mates."""

    def __init__(self, directory: Path, max_length: int | None = None) -> None:
        with quiet():
            self.model = SentenceTransformer(str(directory), device="cpu")
        tokenizer = self.model.tokenizer
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if max_length is not None:
            self.model.max_seq_length = max_length

    def embed(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> NDArray[np.float32]:
        options = {"prompt_name": prompt_name, "prompt": prompt, "show_progress_bar": False}
        with quiet():
            return np.stack([self.model.encode(text, **options) for text in texts])


# Largest error of a component, relative to the embedding's scale: of texts, and of what starts as a
# file, whose pixels or samples are computed in another order.
TEXT_ERROR = 2e-5
FILE_ERROR = 1e-4


def assert_parity(
    got: NDArray[np.float32], want: NDArray[np.float32], error: float = TEXT_ERROR
) -> None:
    """Largest error relative to the embedding's scale, and cosine of every row."""
    assert got.shape == want.shape
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= error * max(1.0, np.abs(want).max())
    a, b = got.astype(np.float64), want.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    assert cosine.min() >= 0.99999
