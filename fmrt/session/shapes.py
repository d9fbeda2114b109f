"""Shapes that come back: a GPU's kernels like multiples of 8, and CUDA graphs need equal shapes.

What is added is padding under a mask of 0, which neither attention nor pooling reads, or rows that
are cut off again.
"""

from __future__ import annotations

import numpy as np

from fmrt.arrays import Feeds

MASK = "attention_mask"
# Tensor cores work on tiles of 8 half-precision numbers.
ALIGNMENT = 8
# Short queries: batches of at most this many rows and tokens are brought to one of few shapes.
BUCKET_TOKENS = 32
BUCKET_ROWS = 32
BUCKET_LENGTH = 256


def aligned(feeds: Feeds) -> Feeds:
    """Texts padded to a multiple of 8 tokens; other feeds as they are."""
    if not _is_text(feeds):
        return feeds
    return _padded(feeds, feeds[MASK].shape[0], _up(feeds[MASK].shape[1], ALIGNMENT))


def bucketed(feeds: Feeds) -> tuple[Feeds, bool]:
    """Feeds in a shape that comes back, and whether it does.

    Few short texts get a power of two of rows and a multiple of 32 tokens. Other texts are only
    aligned. What is no text (images) has few shapes of its own.

    Returns:
        The feeds, with at least as many rows, and whether a graph of this shape is worth recording.
    """
    if not _is_text(feeds):
        return feeds, MASK not in feeds
    rows, length = feeds[MASK].shape
    if rows > BUCKET_ROWS or length > BUCKET_LENGTH:
        return aligned(feeds), False
    return _padded(feeds, 1 << (rows - 1).bit_length(), _up(length, BUCKET_TOKENS)), True


def _is_text(feeds: Feeds) -> bool:
    return "input_ids" in feeds and MASK in feeds


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _padded(feeds: Feeds, rows: int, length: int) -> Feeds:
    """Zeros after each text, and the last text again until there are ``rows``."""
    shape = feeds[MASK].shape
    if (rows, length) == shape:
        return feeds
    more = ((0, rows - shape[0]), (0, 0))
    return {
        name: np.pad(np.pad(a, ((0, 0), (0, length - shape[1]))), more, "edge")
        if a.shape == shape
        else a
        for name, a in feeds.items()
    }
