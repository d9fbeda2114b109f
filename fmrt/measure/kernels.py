"""Matrix products by every kernel that this environment has; `fmrt.measure.peak` starts a process.

Each kernel is measured at the model's shapes, one product on each core, as the runtime uses them.
None of them is the bound by itself: which one is the fastest differs by processor and precision.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fmrt.measure.product_graph import product_graph
from fmrt.session.product import product_runner

SECONDS = 0.25
Shape = tuple[int, int, int]
Run = Callable[[], object]
# Makes a call of one product of rows, inner size and columns.
Kernel = Callable[[int, int, int], Run]


def numpy_fp32(rows: int, inner: int, columns: int) -> Run:
    """NumPy's BLAS."""
    a, b = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
    out = np.empty((rows, columns), np.float32)
    return lambda: np.matmul(a, b, out=out)


def onnxruntime_fp32(rows: int, inner: int, columns: int) -> Run:
    """ONNX Runtime's product with constant weights."""
    x, weights = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
    return product_runner(product_graph(weights), x)


def onnxruntime_int8(rows: int, inner: int, columns: int) -> Run:
    """ONNX Runtime's product of uint8 activations and int8 weights, scaled to float32."""
    x, weights = np.ones((rows, inner), np.uint8), np.ones((inner, columns), np.int8)
    return product_runner(product_graph(weights), x)


def openvino_kernel(precision: str) -> Kernel:
    """OpenVINO's product with constant weights, in ``f32`` or ``bf16``.

    Raises:
        ImportError: The package openvino is not installed.
    """
    import openvino  # no dependency of ours
    from openvino import opset13

    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}

    def kernel(rows: int, inner: int, columns: int) -> Run:
        x = np.ones((rows, inner), np.float32)
        weights = opset13.constant(np.ones((inner, columns), np.float32))
        parameter = opset13.parameter([rows, inner], np.float32)
        model = openvino.Model(
            [opset13.matmul(parameter, weights, False, False)],
            [parameter],
        )
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)

    return kernel


def kernels_of(precision: str) -> dict[str, Kernel]:
    """The kernels of a precision that are installed, by name.

    Args:
        precision: The precision, ``fp32``, ``bf16`` or ``int8``.
    """
    found: dict[str, Kernel] = {}
    if precision == "fp32":
        found = {"numpy": numpy_fp32, "onnxruntime": onnxruntime_fp32}
    elif precision == "int8":
        found = {"onnxruntime": onnxruntime_int8}
    hint = {"fp32": "f32", "bf16": "bf16"}.get(precision)
    if hint is not None:
        with contextlib.suppress(ImportError):
            found["openvino"] = openvino_kernel(hint)
    return found


def main(cores: int, precision: str, shapes: Sequence[Shape]) -> None:
    """Say the kernels' names in a line; answer each further line with the FLOP/s of each."""
    runs: dict[str, list[list[Run]]] = {
        name: [[kernel(*shape) for shape in shapes] for _ in range(cores)]
        for name, kernel in kernels_of(precision).items()
    }
    flops = 2.0 * sum(m * k * n for m, k, n in shapes)
    print(json.dumps(list(runs)), flush=True)
    with ThreadPoolExecutor(cores) as pool:
        for _ in sys.stdin:
            rates = {name: flops * _rate(pool, products) for name, products in runs.items()}
            print(json.dumps(rates), flush=True)


def _rate(pool: ThreadPoolExecutor, products: Sequence[Sequence[Run]]) -> float:
    """Rounds over the products per second, of all cores together."""
    start = time.perf_counter()

    def work(own: Sequence[Run]) -> int:
        done = 0
        while time.perf_counter() < start + SECONDS:
            for run in own:
                run()
            done += 1
        return done

    return sum(pool.map(work, products)) / (time.perf_counter() - start)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
