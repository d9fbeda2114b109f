"""One matrix product of ONNX Runtime, again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.session.creation import session_options


def product_runner(graph: bytes, x: NDArray[Any]) -> Callable[[], object]:
    """A call that runs a graph of one input on one thread of the CPU, its memory bound.

    Args:
        graph: A serialized ONNX model.
        x: Its only input.
    """
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(graph, session_options(), providers=providers)
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    output = session.get_outputs()[0].name
    binding.bind_output(output)
    session.run_with_iobinding(binding)
    value = binding.get_outputs()[0]
    binding.clear_binding_outputs()
    binding.bind_ortvalue_output(output, value)
    return lambda: session.run_with_iobinding(binding)
