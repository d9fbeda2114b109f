"""Batches that do not fit the memory: halved and run again, so that the job goes on."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import DeviceMemoryError, ProviderWarning

# How ONNX Runtime's arena, CUDA, cuBLAS and cuDNN, and C++ say it.
_OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory|Available memory of \d+ is smaller than requested|"
    r"CUDA failure 2: |CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|bad_alloc"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the host or of the device, is used up."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


class BatchHalver:
    """Runs batches; one that does not fit is halved, and later ones start small enough.

    It keeps the size that fits, and nothing of its session: a session in a cycle of references
    would hold its memory until Python looks for cycles.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._lock = threading.Lock()

    def run(
        self,
        compute: Callable[[Feeds], NDArray[np.float32]],
        feeds: Feeds,
        recover: Callable[[], None] | None = None,
    ) -> NDArray[np.float32]:
        """The result of a batch, computed at once or in parts; the rows keep their order.

        Args:
            compute: A function that gives a batch's result, float32 ``[batch, dim]``.
            feeds: The batch.
            recover: A function that frees what can be freed, between a failure and the next
                attempt.

        Raises:
            DeviceMemoryError: One row alone does not fit.
        """
        if self._limit is None or _rows(feeds) == 1 or _size(feeds) <= self._limit:
            try:
                return compute(feeds)
            except Exception as e:
                if not is_out_of_memory(e):
                    raise
                self._failed(feeds, e)
            if recover is not None:
                recover()
        halves = _halves(feeds, _rows(feeds))
        return np.concatenate([self.run(compute, half, recover) for half in halves])

    def _failed(self, feeds: Feeds, error: Exception) -> None:
        """Remember what was too large, and say so the first time."""
        rows, shape = _rows(feeds), _largest(feeds).shape
        if rows == 1:
            raise DeviceMemoryError(
                f"out of memory at a batch of one item, {list(shape)}: {_reason(error)}; use a "
                "larger device or memory limit, fewer workers, or a shorter max length"
            ) from error
        with self._lock:
            first = self._limit is None
            half = _size(feeds) // 2
            self._limit = half if self._limit is None else min(self._limit, half)
        if first:
            warnings.warn(
                f"out of memory at a batch of {list(shape)}: it was split, and so are later ones "
                "as large; fewer batch tokens or workers avoid the failed attempts",
                ProviderWarning,
                stacklevel=2,
            )


def _reason(error: Exception) -> str:
    found = re.search(r"(Failed to allocate memory|Available memory).*", str(error))
    return found.group() if found else str(error).strip().partition("\n")[0]


def _largest(feeds: Feeds) -> NDArray[Any]:
    return max(feeds.values(), key=lambda array: array.size)


def _size(feeds: Feeds) -> int:
    return int(_largest(feeds).size)


def _rows(feeds: Feeds) -> int:
    return int(_largest(feeds).shape[0])


def _halves(feeds: Feeds, rows: int) -> tuple[Feeds, Feeds]:
    """Both halves of a batch; inputs that are no batch, such as a prompt's length, are kept."""
    middle = rows // 2

    def cut(part: slice) -> Feeds:
        return {name: a[part] if a.shape[0] == rows else a for name, a in feeds.items()}

    return cut(slice(None, middle)), cut(slice(middle, None))
