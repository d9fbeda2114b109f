"""A session that gives several outputs: features of an image, or masks and their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import DeviceMemoryError
from fmrt.session.creation import check_inputs, check_outputs, not_run, session_options
from fmrt.session.halving import is_out_of_memory
from fmrt.session.host import input_names
from fmrt.session.providers import Target
from fmrt.system import native
from fmrt.system.archive import BundleFile


class FeatureSession:
    """One graph on a target's first device, all threads inside one operator at a time.

    `run` is safe from many threads and releases the GIL.

    Args:
        path: The ``.onnx`` file.
        target: The target from `resolve_provider`.
        intra_op_threads: The number of threads inside one operator.
        inputs: The names that the graph must have, and no others.
        outputs: The names that it must give.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        GraphError: The graph has other inputs or outputs.
        ProviderError: The session did not get its provider.
    """

    def __init__(
        self,
        path: BundleFile,
        target: Target,
        intra_op_threads: int,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        options = session_options(intra_op_threads)
        self._session = target.provider.start(path, options, target.devices[0])
        check_inputs(self._session, inputs)
        check_outputs(self._session, outputs)
        self._inputs = input_names(self._session)

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Some outputs of one batch, by name; unknown feeds are dropped.

        Raises:
            DeviceMemoryError: The batch does not fit the memory.
        """
        used = {name: array for name, array in feeds.items() if name in self._inputs}
        try:
            values = native.call(self._session.run, list(outputs), used)
        except Exception as e:
            if not is_out_of_memory(e):
                raise not_run(e) from e
            raise DeviceMemoryError("out of memory at one image; use a larger device") from e
        found = (np.asarray(value, np.float32) for value in values)
        return dict(zip(outputs, found, strict=True))
