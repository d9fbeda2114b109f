"""fp32 that is fp32: PyTorch's reference vectors are computed without TF32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 off in matrix products and convolutions, which have it on by default.

    TF32 keeps 10 bits of a product's operands; parity asks for 1e-4 of the largest component.
    """
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    matmul.allow_tf32 = conv.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, conv.allow_tf32 = before
