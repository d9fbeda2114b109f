"""Opens a graph on a target, whatever that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmrt.session.creation import create, session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.host import HostSession
from fmrt.session.providers import Target
from fmrt.session.several import Session, SeveralSessions

__all__ = ["DeviceOptions", "Session", "open_session", "provider_options"]


@dataclass(frozen=True)
class DeviceOptions:
    """What a user may say about GPUs; without effect on the CPU.

    Attributes:
        memory_limit: most bytes that ONNX Runtime takes of each device's memory; None for all.
        cuda_graphs: record a CUDA graph for each shape of images and of few short texts: less work
            for the CPU a batch, one batch at a time.
    """

    memory_limit: int | None = None
    cuda_graphs: bool = False


def open_session(
    path: Path,
    target: Target,
    output: str,
    options: DeviceOptions | None = None,
    intra_op_threads: int = 1,
) -> Session:
    """Load a graph on every device of a target.

    Args:
        path: the ``.onnx`` file.
        target: from `resolve_provider`.
        output: name of the output to compute.
        options: of GPUs.
        intra_op_threads: threads inside one operator on the CPU; 1 when callers run in parallel.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        ProviderError: the session did not get its provider.
    """
    if target.name == "cpu":
        return HostSession(path, output, intra_op_threads)
    options = options or DeviceOptions()
    sessions = [_on_device(path, target, device, output, options) for device in target.devices]
    return sessions[0] if len(sessions) == 1 else SeveralSessions(sessions)


def _on_device(
    path: Path, target: Target, index: int, output: str, options: DeviceOptions
) -> DeviceSession:
    session = create(
        path, target.provider, session_options(), provider_options(target.name, index, options)
    )
    graphs = options.cuda_graphs and target.name == "cuda"
    return DeviceSession(session, output, Device("cuda", index), graphs=graphs)


def provider_options(name: str, index: int, options: DeviceOptions) -> dict[str, str]:
    """ONNX Runtime's options of a provider on one device.

    TF32 is off: it rounds fp32 products to 10 bits, and fp32 vectors are to be PyTorch's.
    """
    if name == "tensorrt":
        cache = Path.home() / ".cache" / "fmrt" / "tensorrt"
        return {
            "device_id": str(index),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
        }
    found = {
        "device_id": str(index),
        "use_tf32": "0",
        # Doubling what is taken would be the end of a job that nearly fills the device.
        "arena_extend_strategy": "kSameAsRequested",
        # The default tries every algorithm of a convolution at every new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    if options.memory_limit is not None:
        found["gpu_mem_limit"] = str(options.memory_limit)
    if options.cuda_graphs:
        found["enable_cuda_graph"] = "1"
    return found
