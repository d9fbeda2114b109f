"""What the engine asks of a modality's preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import InputError


class Encoded(Protocol):
    """The items of one window, ready to be put into batches."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions that the model computes for each item, int64 ``[n]``."""

    @property
    def cut(self) -> Sequence[int]:
        """Lengths, before, of the items that were cut to what the model takes."""

    @property
    def counted(self) -> bool:
        """Whether ``cut`` is right of every item; else it may be less than that."""

    @property
    def errors(self) -> Mapping[int, InputError]:
        """Items that cannot be embedded, by row; such rows are asked for in no batch."""

    def feeds(self, rows: NDArray[np.int64]) -> Feeds:
        """Model inputs of some rows, each ``[len(rows), ...]``."""

    def keys(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Bytes for each row that are equal exactly where what the model computes is."""


class Preprocessor(Protocol):
    """Raw items to model inputs, in two steps: each item alone, then a window of them.

    Attributes:
        unit: The word for an item in messages.
        parallel: Whether `load` is work enough to be spread over the cores.
        padded: Whether items of different lengths may share a batch, padded.
        dedupe: Whether equal items of a window are found unasked, as that costs next to nothing.
        window_weight: The largest weight of a window.
        limit: The length of the longest item that is not cut, as `Encoded.lengths`.
        stride: The part of a length that makes one position for the model.
    """

    unit: str
    parallel: bool
    padded: bool
    dedupe: bool
    window_weight: int
    limit: int
    stride: int

    def load(self, item: object) -> object:
        """Check or decode one item.

        Raises:
            InputError: The item is not fit for any model.
        """

    def weight(self, loaded: Any) -> int:  # noqa: ANN401  # what `load` returned
        """What a loaded item counts against ``window_weight``."""

    def encode(self, loaded: Sequence[Any], prompt: str, on_too_long: str) -> Encoded:
        """Prepare loaded items for batches."""

    def shown(self, length: int) -> str:
        """A length in positions as people read it, e.g. ``256 tokens`` or ``30.0 s``."""

    def constants(self, prompt: str) -> Feeds:
        """Model inputs that are the same for every batch of a stream."""
