"""What a GPU is, and how fast it multiplies matrices."""

from __future__ import annotations

import platform
import subprocess
import time
from typing import Any

import torch

# Large enough that the product's own work is all that is seen.
MATMUL_SIZE = {"cuda": 8192, "cpu": 512}


def hardware(device: str) -> dict[str, Any]:
    """Names and versions of what the figures belong to."""
    import onnxruntime

    found = {
        "machine": platform.machine(),
        "device": platform.processor() or "CPU",
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "device_memory_bytes": properties.total_memory}
        found |= {"driver": _query("driver_version"), "cuda": torch.version.cuda}
    return found


def matmul_flops_per_second(device: str, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of one large square product, the best of its rounds: the peak that can be measured."""
    size = MATMUL_SIZE[device]
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    best, end = float("inf"), time.perf_counter() + seconds
    torch.matmul(a, a, out=out)
    while time.perf_counter() < end:
        _wait(device)
        start = time.perf_counter()
        torch.matmul(a, a, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _query(what: str) -> str:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.strip()
