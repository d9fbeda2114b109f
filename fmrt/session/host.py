"""A session that takes its inputs from host memory and leaves its outputs there."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import FmrtError
from fmrt.session.creation import check_inputs, check_outputs, not_run
from fmrt.session.halving import BatchHalver
from fmrt.session.ort_types import OrtSession
from fmrt.system import native

# Flash attention takes no padding, and is faster for texts longer than this, see
# `fmrt.export.rewrite.fused_attention`; without it the scores of all queries and keys are held at
# once.
LONGEST_PADDED = 256


class HostSession:
    """One graph; `run` is safe from many threads and releases the GIL.

    Args:
        session: The session of ONNX Runtime.
        output: The name of the output to compute.
        workers: The number of batches to run at the same time; None for one per core.

    Raises:
        GraphError: The graph has no such output.
    """

    batch_tokens: int | None = None
    window_items: int | None = None
    longest_padded: int | None = LONGEST_PADDED

    def __init__(
        self,
        session: OrtSession,
        output: str,
        workers: int | None = None,
    ) -> None:
        check_outputs(session, [output])
        self.workers = workers
        self._session = session
        self._output = output
        self._inputs = input_names(session)
        self._halver = BatchHalver()

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        used = {name: array for name, array in feeds.items() if name in self._inputs}
        try:
            return self._halver.run(self._run, used)
        except FmrtError:
            raise
        except Exception as e:  # what kernels raise has no common base
            raise not_run(e) from e

    def check_inputs(self, names: Sequence[str]) -> None:
        """Raise unless the graph has these inputs, and needs no others.

        Raises:
            GraphError: The graph has no such input, or needs another one.
        """
        check_inputs(self._session, names)

    def in_child(self) -> HostSession | None:
        """The same in a process that was forked, its weights shared; None if it must be opened."""
        if self._session.get_session_options().intra_op_num_threads != 1:
            return None
        session = copy.copy(self)
        session._halver = BatchHalver()
        return session

    def _run(self, feeds: Feeds) -> NDArray[np.float32]:
        values = native.call(self._session.run, [self._output], dict(feeds))
        return np.asarray(values[0], np.float32)


def input_names(session: OrtSession) -> frozenset[str]:
    """Names of a graph's inputs, those with a default too: initializers to ONNX Runtime."""
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    return frozenset(i.name for i in inputs)
