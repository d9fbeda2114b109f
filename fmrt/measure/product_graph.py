"""An ONNX graph of one matrix product with constant weights, written without the onnx package.

The field numbers are those of onnx.proto3 (ONNX IR version 8); the wire format is Protocol
Buffers' (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10
FLOATS = {np.dtype(np.float32): FLOAT, np.dtype(np.float16): FLOAT16}
TYPES = {**FLOATS, np.dtype(np.uint8): UINT8, np.dtype(np.int8): INT8}
VARINT, BYTES = 0, 2
IR_VERSION, OPSET = 8, 18


def product_graph(weights: NDArray[np.generic]) -> bytes:
    """A serialized ``ModelProto`` that computes ``y = x @ weights``.

    Args:
        weights: The weights, float32, float16 or int8 ``[inner, columns]``; ``x`` and ``y`` are
            like them. For int8, ``x`` is uint8 and ``y`` float32, by ONNX Runtime's
            ``MatMulIntegerToFloat`` with scales of 1.
    """
    constants: dict[str, NDArray[np.generic]] = {"w": weights}
    op_type, domain = "MatMul", ""
    kind = out = FLOATS.get(weights.dtype, FLOAT)
    if weights.dtype == np.int8:
        constants |= {name: np.ones(1, np.float32) for name in ("x_scale", "w_scale")}
        op_type, domain, kind = "MatMulIntegerToFloat", "com.microsoft", UINT8
    inputs = b"".join(_text(1, name) for name in ("x", *constants))
    node = inputs + _text(2, "y") + _text(4, op_type) + _text(7, domain)
    graph = (
        _field(1, node)
        + _text(2, "product")
        + b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
        + _field(11, _value("x", kind))
        + _field(12, _value("y", out))
    )
    imports = _field(8, _text(1, "") + _number(2, OPSET))
    imports += _field(8, _text(1, "com.microsoft") + _number(2, 1))
    return _number(1, IR_VERSION) + _field(7, graph) + imports


def _tensor(name: str, value: NDArray[np.generic]) -> bytes:
    sizes = b"".join(_number(1, size) for size in value.shape)
    return sizes + _number(2, TYPES[value.dtype]) + _text(8, name) + _field(9, value.tobytes())


def _value(name: str, kind: int) -> bytes:
    """A ``ValueInfoProto`` of a matrix whose sizes are open."""
    axis = _field(1, _text(2, ""))
    tensor = _number(1, kind) + _field(2, axis + axis)
    return _text(1, name) + _field(2, _field(1, tensor))


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    groups = []
    while value >= 1 << 7:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
