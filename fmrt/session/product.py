"""One matrix product of ONNX Runtime, again and again, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.session.creation import session_options
from fmrt.session.device_options import DeviceOptions
from fmrt.session.providers import Target


def product_runner(graph: bytes, x: NDArray[Any]) -> Callable[[], object]:
    """A call that runs a graph of one input on one thread of the CPU, its memory bound.

    Args:
        graph: A serialized ONNX model.
        x: The only input of the graph.
    """
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(graph, session_options(), providers=providers)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    first = session.run([output], {name: x})[0]
    # Both are kept by the call: a binding alone does not keep them in every version.
    kept = ort.OrtValue.ortvalue_from_numpy(x), ort.OrtValue.ortvalue_from_numpy(first)
    binding = session.io_binding()
    binding.bind_ortvalue_input(name, kept[0])
    binding.bind_ortvalue_output(output, kept[1])

    def run(_: object = kept) -> None:
        session.run_with_iobinding(binding)

    return run


def device_product_runner(graph: bytes, x: NDArray[Any], target: Target) -> Callable[[], object]:
    """A call that runs a graph of one input on a target's first device, in its own memory.

    Args:
        graph: A serialized ONNX model.
        x: The only input of the graph.
        target: A target whose devices have memory of their own.
    """
    provider, device = target.provider, target.devices[0]
    given = [(provider.ort_name, provider.options(device, DeviceOptions()))]
    session = ort.InferenceSession(graph, session_options(), providers=given)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    memory = provider.memory or "cpu"
    kept = ort.OrtValue.ortvalue_from_numpy(x, memory, device)
    binding = session.io_binding()
    binding.bind_ortvalue_input(name, kept)
    binding.bind_output(output, memory, device)

    def run(_: object = kept) -> None:
        session.run_with_iobinding(binding)

    return run
