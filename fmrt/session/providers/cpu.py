"""The CPU."""

from __future__ import annotations

from fmrt.session.base import Session
from fmrt.session.creation import session_options
from fmrt.session.device_options import DeviceOptions
from fmrt.session.host import HostSession
from fmrt.session.providers.base import Provider
from fmrt.system.archive import BundleFile
from fmrt.system.cores import cpu_name

# Fusions whose CPU kernels are slower than the operators they replace: SkipLayerNormalization is a
# scalar loop, and BiasGelu takes the bias from the Gemm that adds it for free. See
# docs/performance.md.
SLOW_CPU_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")


class Cpu(Provider):
    """ONNX Runtime's own kernels, one session whatever the number of cores."""

    on_host = True
    tuned = True
    disabled = SLOW_CPU_FUSIONS

    def device_names(self) -> list[str]:
        """The processor's own name."""
        return [cpu_name()]

    def open(
        self,
        path: BundleFile,
        output: str,
        device: int,
        wanted: DeviceOptions,
        intra_op_threads: int,
    ) -> Session:
        """A session that many workers share, each operator on ``intra_op_threads``."""
        session = self.start(
            path, session_options(intra_op_threads, low_memory=wanted.low_memory), device, wanted
        )
        return HostSession(session, output)


PROVIDER = Cpu("cpu", "CPUExecutionProvider", "pip install onnxruntime")
