"""What a user may say about a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceOptions:
    """What a user may say about GPUs; without effect on the CPU.

    Attributes:
        memory_limit: Most bytes that ONNX Runtime takes of each device's memory; None for all.
        cuda_graphs: Record a CUDA graph for each shape of images and of few short texts: less work
            for the CPU per batch, one batch at a time.
    """

    memory_limit: int | None = None
    cuda_graphs: bool = False
