"""NVIDIA GPUs, by ONNX Runtime's CUDA kernels."""

from __future__ import annotations

from fmrt.session.base import Session
from fmrt.session.creation import session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.device_options import DeviceOptions
from fmrt.session.diagnosis import (
    cuda_device_address,
    cuda_device_count,
    cuda_device_model,
    load_problem,
)
from fmrt.session.providers.base import Provider
from fmrt.system.archive import BundleFile

INSTALL_CUDA = 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'


class Cuda(Provider):
    """A provider whose library of the ONNX Runtime wheel is loaded when a session starts.

    Attributes:
        library: The name of the library without ``lib`` and ending.
    """

    precisions = ("fp16", "fp32")
    tuned = True
    checks_batches = True
    records_graphs = True
    memory = "cuda"
    library = "onnxruntime_providers_cuda"

    def problem(self) -> str | None:
        """The loader's own words for what is missing, where the wheel has this provider."""
        return super().problem() or load_problem(self.library, self.install)

    def device_names(self) -> list[str]:
        """One name for each CUDA device that this process may use."""
        return [f"{self.name}:{index}" for index in range(cuda_device_count())]

    def device_model(self, device: int) -> str | None:
        """The GPU's name, as its driver says it."""
        return cuda_device_model(device)

    def device_address(self, device: int) -> str | None:
        """The GPU's place on the PCI bus: ``nvidia-smi`` counts otherwise than CUDA."""
        return cuda_device_address(device)

    @property
    def counting(self) -> str:
        """CUDA's own choice of devices."""
        return " (CUDA_VISIBLE_DEVICES counts)"

    def options(self, device: int, wanted: DeviceOptions) -> dict[str, str]:
        """TF32 is off: it rounds fp32 products to 10 bits, and fp32 vectors are to be PyTorch's."""
        found = {
            "device_id": str(device),
            "use_tf32": "0",
            # Doubling what is taken would be the end of a job that nearly fills the device.
            "arena_extend_strategy": "kSameAsRequested",
            # The default tries every algorithm of a convolution at every new shape.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        if wanted.memory_limit is not None:
            found["gpu_mem_limit"] = str(wanted.memory_limit)
        if wanted.cuda_graphs:
            found["enable_cuda_graph"] = "1"
        return found

    def open(
        self,
        path: BundleFile,
        output: str,
        device: int,
        wanted: DeviceOptions,
        intra_op_threads: int,
    ) -> Session:
        """A session whose inputs and outputs are bound to the device's memory."""
        del intra_op_threads  # no core computes
        session = self.start(path, session_options(), device, wanted)
        return DeviceSession(
            session, output, Device("cuda", device), graphs=bool(wanted.cuda_graphs)
        )


PROVIDER = Cuda("cuda", "CUDAExecutionProvider", INSTALL_CUDA)
