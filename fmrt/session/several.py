"""Several devices as one session: each batch goes to the one with the least to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds


class Session(Protocol):
    """What the engine asks of a session.

    Attributes:
        workers: Batches to run at the same time; None for one a core.
        batch_tokens: Most positions of a batch by default; None for the scheduler's own default.
        window_items: Items to sort by length together; None for the scheduler's own default.
        longest_padded: Positions of the longest item that may share a batch with items of other
            lengths; None for any.
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
            GraphError: It has none of that name.
        """

    def in_child(self) -> Session | None:
        """The same in a process that was forked; None if it must be opened again there."""


class SeveralSessions:
    """The same graph on several devices.

    Args:
        sessions: One a device, at least one.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.workers: int | None = sum(session.workers or 1 for session in sessions)
        self.batch_tokens = sessions[0].batch_tokens
        self.window_items = sessions[0].window_items
        self.longest_padded = sessions[0].longest_padded
        self._sessions = sessions
        self._running = [0] * len(sessions)
        self._lock = threading.Lock()

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        with self._lock:
            device = int(np.argmin(self._running))
            self._running[device] += 1
        try:
            return self._sessions[device].run(feeds)
        finally:
            with self._lock:
                self._running[device] -= 1

    def check_inputs(self, names: Sequence[str]) -> None:
        """Raise unless the graph has these inputs, and needs no others.

        Raises:
            GraphError: It has none of that name.
        """
        for session in self._sessions:
            session.check_inputs(names)

    def in_child(self) -> None:
        """None: no device outlives a fork."""
