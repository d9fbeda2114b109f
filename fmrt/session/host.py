"""A session on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.session.creation import create, session_options
from fmrt.session.memory import Memory
from fmrt.session.providers import PROVIDERS

Feeds = Mapping[str, NDArray[Any]]

# Fusions whose CPU kernels are slower than the operators they replace: SkipLayerNormalization is a
# scalar loop, and BiasGelu takes the bias from the Gemm that adds it for free. See
# docs/performance.md.
SLOW_CPU_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
# Flash attention takes no padding, and is faster for texts longer than this, see
# `fmrt.export.rewrite.fused_attention`; without it the scores of all queries and keys are held at
# once.
LONGEST_PADDED = 256


class HostSession:
    """One graph on the CPU; `run` is safe from many threads and releases the GIL.

    Args:
        path: the ``.onnx`` file.
        output: name of the output to compute.
        intra_op_threads: threads inside one operator; 1 when callers run in parallel.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        ProviderError: it holds operators that the CPU has not.
    """

    workers: int | None = None
    batch_tokens: int | None = None
    window_items: int | None = None
    longest_padded: int | None = LONGEST_PADDED

    def __init__(self, path: Path, output: str, intra_op_threads: int = 1) -> None:
        options = session_options(intra_op_threads)
        self._session = create(path, PROVIDERS["cpu"], options, {}, SLOW_CPU_FUSIONS)
        self._output = output
        self._inputs = input_names(self._session)
        self._memory = Memory()

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        used = {name: feeds[name] for name in self._inputs & feeds.keys()}
        return self._memory.run(self._run, used)

    def _run(self, feeds: Feeds) -> NDArray[np.float32]:
        return np.asarray(self._session.run([self._output], dict(feeds))[0], np.float32)


def input_names(session: Any) -> frozenset[str]:  # noqa: ANN401  # ort.InferenceSession
    """Names of a graph's inputs, those with a default too: initializers to ONNX Runtime."""
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    return frozenset(i.name for i in inputs)
