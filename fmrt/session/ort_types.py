"""Names for objects of ONNX Runtime, which has no types of its own."""

from __future__ import annotations

from typing import Any, TypeAlias

OrtSession: TypeAlias = Any  # ort.InferenceSession
OrtOptions: TypeAlias = Any  # ort.SessionOptions
OrtRunOptions: TypeAlias = Any  # ort.RunOptions
OrtValue: TypeAlias = Any  # ort.OrtValue
OrtDevice: TypeAlias = Any  # ort.OrtEpDevice
