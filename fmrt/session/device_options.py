"""What a user may say about a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceOptions:
    """What a user may say about a device, and what is known of the graph that goes there.

    Attributes:
        memory_limit: The largest number of bytes that ONNX Runtime takes of each device's memory;
            None for all.
        cuda_graphs: Whether a CUDA graph is recorded for each shape of images and of few short
            texts: less work for the CPU per batch, one batch at a time. With None, they are
            recorded in a second session, for few items.
        low_memory: Whether no memory is kept for later batches, on the CPU.
        precision: The variant's precision, for providers that choose what they compute in.
    """

    memory_limit: int | None = None
    cuda_graphs: bool | None = None
    precision: str = "fp32"
    low_memory: bool = False
