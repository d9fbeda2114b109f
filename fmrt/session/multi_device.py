"""Several devices as one session: each batch goes to the least busy one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.session.base import Session


class MultiDeviceSession:
    """The same graph on several devices.

    Args:
        sessions: The sessions, one per device; there is at least one.
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
            GraphError: The graph has no such input, or needs another one.
        """
        for session in self._sessions:
            session.check_inputs(names)

    def in_child(self) -> None:
        """None: no device outlives a fork."""
