"""CUDA graphs for few items, beside the session that has the last word.

A graph saves a query most of its time, and cannot be recorded of every model and shape, which
shows when it is tried. So the first batches of each shape are computed by both sessions. Where one
cannot be recorded, or gives other vectors, it is said once, and the plain session computes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import ProviderWarning
from fmrt.session.base import Session
from fmrt.session.shapes import BUCKET_ROWS, bucketed
from fmrt.system.user_warning import warn_user

# Batches of a shape that both sessions compute: while it is recorded, and from the record.
COMPARED = 3
# Most difference, as a part of the largest component: fp16's rounding, in kernels of another shape.
CLOSE = 1e-2


class Graphed:
    """A session for few items, which records CUDA graphs where that gives the same vectors.

    Args:
        open_session: A function that opens a session that records graphs.
        plain: The session without them.
    """

    def __init__(self, open_session: Callable[[], Session], plain: Session) -> None:
        self.workers, self.batch_tokens = plain.workers, plain.batch_tokens
        self.window_items, self.longest_padded = plain.window_items, plain.longest_padded
        self._plain = plain
        self._seen: dict[tuple[object, ...], int] = {}
        self._recording: Session | None = None
        try:
            self._recording = open_session()
        except Exception as e:  # what a graph that cannot be captured raises has no common base
            self._give_up(str(e))

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        recording = self._recording
        shaped, recurs = bucketed(feeds)
        if recording is None or not recurs or len(next(iter(feeds.values()))) > BUCKET_ROWS:
            return self._plain.run(feeds)
        key = tuple(sorted((name, array.shape) for name, array in shaped.items()))
        times = self._seen.get(key, 0)
        try:
            vectors = recording.run(feeds)
        except Exception as e:  # the plain session says whether it is the batch's own fault
            self._give_up(str(e))
            return self._plain.run(feeds)
        if times >= COMPARED:
            return vectors
        plain = self._plain.run(feeds)
        self._seen[key] = times + 1
        if not np.allclose(vectors, plain, rtol=0, atol=CLOSE * float(np.abs(plain).max())):
            self._give_up("they give other vectors")
        return plain

    def check_inputs(self, names: Sequence[str]) -> None:
        """Raise unless the graph has these inputs, and needs no others.

        Raises:
            GraphError: The graph has no such input, or needs another one.
        """
        self._plain.check_inputs(names)

    def in_child(self) -> None:
        """None: no device outlives a fork."""

    def _give_up(self, why: str) -> None:
        """Say once why, and let go of the session and its memory."""
        self._recording = None
        reason = why.strip().partition("\n")[0]
        warn_user(
            f"CUDA graphs are not used, and short queries take longer: {reason}; "
            "cuda_graphs=False, --no-cuda-graphs, says that you do not want them",
            ProviderWarning,
        )
