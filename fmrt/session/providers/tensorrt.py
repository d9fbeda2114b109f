"""NVIDIA GPUs, by engines that TensorRT builds for each graph."""

from __future__ import annotations

import dataclasses

from fmrt.session.base import Session
from fmrt.session.device_options import DeviceOptions
from fmrt.session.providers.cuda import INSTALL_CUDA, Cuda
from fmrt.system.archive import BundleFile
from fmrt.system.cache_directory import cache_directory


class TensorRt(Cuda):
    """CUDA's devices and memory, and a cache of engines in the user's cache directory."""

    tuned = False
    records_graphs = False
    library = "onnxruntime_providers_tensorrt"

    def options(self, device: int, wanted: DeviceOptions) -> dict[str, str]:
        """Engines take minutes to build, and are kept."""
        del wanted
        return {
            "device_id": str(device),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache_directory() / "tensorrt"),
        }

    def open(
        self,
        path: BundleFile,
        output: str,
        device: int,
        wanted: DeviceOptions,
        intra_op_threads: int,
    ) -> Session:
        """As on CUDA, but TensorRT's engines record no CUDA graphs of ours."""
        wanted = dataclasses.replace(wanted, cuda_graphs=False)
        return super().open(path, output, device, wanted, intra_op_threads)


PROVIDER = TensorRt("tensorrt", "TensorrtExecutionProvider", f"{INSTALL_CUDA} tensorrt")
