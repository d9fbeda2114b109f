"""Whether 8-bit products are exact on this CPU: ``python -m benchmarks.scripts.saturation``.

CPUs without VNNI add two products in 16 bits, which saturates. One without it can be emulated:
``qemu-x86_64 -cpu Haswell .venv/bin/python -m benchmarks.scripts.saturation``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.export.quantize.rounding import round_weights

ROWS, FEATURES, COLUMNS = (1, 2, 7, 64), (5, 64, 383, 1536), 33


def largest_error(weight: NDArray[np.int8], rows: int) -> int:
    """Largest error of ``MatMulInteger`` for large activations, which is 0 where none saturates."""
    x = np.random.default_rng(0).integers(200, 256, (rows, len(weight))).astype(np.uint8)
    value = ir.val("x", ir.DataType.UINT8, [rows, len(weight)])
    constants = {"w": weight, "zero": np.array(128, np.uint8)}
    inputs = [value, *(ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in constants.items())]
    node = ir.node("MatMulInteger", inputs)
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 21})
    for initializer in inputs[1:]:
        graph.initializers[str(initializer.name)] = initializer
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    want = (x.astype(np.int64) - 128) @ weight.astype(np.int64)
    return int(np.abs(session.run(None, {"x": x})[0] - want).max())


def rounded(features: int) -> NDArray[np.int8]:
    """Weights that are all large, as the exporter rounds them."""
    rng = np.random.default_rng(0)
    return round_weights(rng.uniform(0.8, 1, (features, COLUMNS)).astype(np.float32), None)[0]


if __name__ == "__main__":
    for features in FEATURES:
        plain = np.full((features, COLUMNS), 127, np.int8)
        for rows in ROWS:
            print(
                f"{rows} x {features}: largest error of a sum {largest_error(plain, rows):,} with "
                f"weights of 127, {largest_error(rounded(features), rows):,} with the exporter's"
            )
