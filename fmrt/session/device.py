"""A session on one GPU: inputs and outputs bound to device memory that is used again.

Each stream has buffers of its own, so that one batch is copied while another is computed. A stream
keeps a binding for every shape that it has seen lately: memory on the device for the inputs and for
the embedding, which alone is copied back. The addresses of a binding never change, as CUDA graphs
ask; a graph is recorded for shapes that come back often, see `fmrt.session.shapes`.
"""

from __future__ import annotations

import queue
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.errors import FmrtError
from fmrt.session.creation import check_inputs, check_outputs, not_run
from fmrt.session.halving import BatchHalver
from fmrt.session.host import input_names
from fmrt.session.log import silent
from fmrt.session.ort_types import OrtRunOptions, OrtSession, OrtValue
from fmrt.session.pinned import page_locked
from fmrt.session.shapes import aligned, bucketed
from fmrt.system import native

Key = tuple[tuple[str, tuple[int, ...], str], ...]

# Device memory for inputs that a stream keeps bound, beyond the batch that it runs.
BOUND_BYTES = 256 << 20
MAX_GRAPHS = 64
# What ONNX Runtime takes for "run this without recording a graph".
NO_GRAPH = "-1"
# Types of an embedding on the device, by ONNX Runtime's name.
OUTPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class Device:
    """Where tensors live: ONNX Runtime's name of the kind, and an index."""

    kind: str
    index: int


@dataclass(frozen=True)
class _Bound:
    """A binding of one shape, with the memory that it points to."""

    binding: Any
    inputs: Mapping[str, Any]
    staging: Mapping[str, NDArray[Any]]
    output: Any | None
    size: int
    graph: str


class DeviceSession:
    """One graph on one device; `run` is safe from many threads, of which ``streams`` compute.

    Args:
        session: The session of ONNX Runtime, on that device.
        output: The name of the output to compute.
        device: The device where its tensors live.
        streams: The number of batches at a time.
        graphs: Whether the session records CUDA graphs; then with one stream only.
        batch_tokens: The largest number of positions of a batch by default.
        window_items: The number of items that are sorted by length together.
    """

    def __init__(
        self,
        session: OrtSession,
        output: str,
        device: Device,
        *,
        streams: int = 2,
        graphs: bool = False,
        batch_tokens: int = 16_384,
        window_items: int = 16_384,
    ) -> None:
        check_outputs(session, [output])
        streams = 1 if graphs else streams
        self.workers: int | None = streams
        self.batch_tokens: int | None = batch_tokens
        self.window_items: int | None = window_items
        self.longest_padded: int | None = None
        self._session = session
        self._inputs = input_names(session)
        self._graphs = graphs
        self._streams: queue.SimpleQueue[_Stream] = queue.SimpleQueue()
        for _ in range(streams):
            self._streams.put(_Stream(session, output, device))
        self._halver = BatchHalver()

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        used = {name: feeds[name] for name in self._inputs & feeds.keys()}
        try:
            return self._halver.run(self._run, used, self._recover)
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

    def in_child(self) -> None:
        """None: no device outlives a fork."""

    def _run(self, feeds: Feeds) -> NDArray[np.float32]:
        rows = len(next(iter(feeds.values())))
        feeds, recurs = bucketed(feeds) if self._graphs else (aligned(feeds), False)
        stream = self._streams.get()
        try:
            with silent():
                return stream.run(feeds, record=recurs)[:rows]
        finally:
            self._streams.put(stream)

    def _recover(self) -> None:
        """Free the buffers of the streams that are idle."""
        idle = []
        try:
            while True:
                idle.append(self._streams.get_nowait())
        except queue.Empty:
            pass
        for stream in idle:
            stream.clear()
            self._streams.put(stream)


class _Stream:
    """What one batch at a time needs: a binding for each shape, the latest kept."""

    def __init__(self, session: OrtSession, output: str, device: Device) -> None:
        self._session = session
        self._output = next(o for o in session.get_outputs() if o.name == output)
        self._device = device
        self._bound: OrderedDict[Key, _Bound] = OrderedDict()
        self._recorded: dict[Key, _Bound] = {}
        self._shrink = False

    def run(self, feeds: Feeds, *, record: bool) -> NDArray[np.float32]:
        """Copy a batch to the device, compute it, and copy its vectors back."""
        bound = self._binding(feeds, record=record)
        for name, array in feeds.items():
            np.copyto(bound.staging[name], array)
            bound.inputs[name].update_inplace(bound.staging[name])
        options = self._options(bound.graph)
        native.call(self._session.run_with_iobinding, bound.binding, options)
        if bound.output is not None:
            return np.array(bound.output.numpy(), np.float32)
        return np.array(bound.binding.copy_outputs_to_cpu()[0], np.float32)

    def clear(self) -> None:
        """Free every buffer that no graph holds, and let the next run give memory back."""
        self._bound.clear()
        self._shrink = True

    def _binding(self, feeds: Feeds, *, record: bool) -> _Bound:
        key = tuple(sorted((name, a.shape, a.dtype.str) for name, a in feeds.items()))
        if key in self._recorded:
            return self._recorded[key]
        if record and len(self._recorded) < MAX_GRAPHS:
            self._recorded[key] = self._bind(feeds, str(len(self._recorded) + 1))
            return self._recorded[key]
        if key not in self._bound:
            self._bound[key] = self._bind(feeds, NO_GRAPH)
        self._bound.move_to_end(key)
        while len(self._bound) > 1 and sum(b.size for b in self._bound.values()) > BOUND_BYTES:
            self._bound.popitem(last=False)
        return self._bound[key]

    def _bind(self, feeds: Feeds, graph: str) -> _Bound:
        kind, index = self._device.kind, self._device.index
        binding = self._session.io_binding()
        staging = {name: np.ascontiguousarray(a).copy() for name, a in feeds.items()}
        if kind == "cuda":
            staging = {name: page_locked(a) for name, a in staging.items()}
        inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(a, kind, index) for name, a in staging.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        output = self._allocate_output(len(next(iter(feeds.values()))))
        if output is None:
            binding.bind_output(self._output.name, kind, index)
            graph = NO_GRAPH  # its address would change
        else:
            binding.bind_ortvalue_output(self._output.name, output)
        size = sum(a.nbytes for a in feeds.values())
        return _Bound(binding, inputs, staging, output, size, graph)

    def _allocate_output(self, rows: int) -> OrtValue | None:
        """Memory for ``[rows, dim]``; None when the graph leaves the sizes or type open."""
        dtype = OUTPUT_TYPES.get(self._output.type)
        sizes = self._output.shape[1:]
        if dtype is None or not all(isinstance(size, int) for size in sizes):
            return None
        return ort.OrtValue.ortvalue_from_shape_and_type(
            [rows, *sizes], dtype, self._device.kind, self._device.index
        )

    def _options(self, graph: str) -> OrtRunOptions:
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        if self._shrink and self._device.kind != "cpu":
            place = f"gpu:{self._device.index}"
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", place)
        self._shrink = False
        return options
