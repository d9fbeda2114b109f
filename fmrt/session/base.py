"""What every session does, whichever provider computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds


class Session(Protocol):
    """What the engine asks of a session.

    Attributes:
        workers: The number of batches to run at the same time; None for one per core.
        batch_tokens: The largest number of positions of a batch by default; None for the
            scheduler's own default.
        window_items: The number of items to sort by length together; None for the scheduler's own
            default.
        longest_padded: The number of positions of the longest item that may share a batch with
            items of other lengths; None for any.
    """

    workers: int | None
    batch_tokens: int | None
    window_items: int | None
    longest_padded: int | None

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""

    def check_inputs(self, names: Sequence[str]) -> None:
        """Raise unless the graph has these inputs, and needs no others.

        Raises:
            GraphError: The graph has no such input, or needs another one.
        """

    def in_child(self) -> Session | None:
        """The same in a process that was forked; None if it must be opened again there."""
