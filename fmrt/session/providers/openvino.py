"""Intel's OpenVINO: CPUs of any maker with bf16 where they have it, and Intel's GPUs and NPUs.

It reads a bundle's portable graph itself, so that it needs no ONNX Runtime of its own. fp32 graphs
are computed in fp32; a variant ``bf16`` is the same graph in bf16, which OpenVINO takes by default
where the processor has it (``ov::hint::inference_precision``).
"""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any

from numpy.typing import NDArray

from fmrt.errors import BundleCorruptError, ProviderError, said
from fmrt.session.base import Session
from fmrt.session.creation import session_options
from fmrt.session.device_options import DeviceOptions
from fmrt.session.host import HostSession
from fmrt.session.ort_types import OrtOptions, OrtSession
from fmrt.session.providers.base import DEFAULT, Provider
from fmrt.system import native
from fmrt.system.archive import BundleFile, Member
from fmrt.system.cores import available_cores
from fmrt.system.extras import needing

# OpenVINO's names of precisions. What is neither is computed in fp32.
HINTS = {"bf16": "bf16"}
# Its names of element types, as ONNX Runtime calls them.
TYPES = {"f32": "tensor(float)", "i64": "tensor(int64)", "f16": "tensor(float16)"}


class OpenVino(Provider):
    """OpenVINO's own runtime, from the package ``openvino``."""

    on_host = True
    tuned = True

    def version(self) -> str:
        """OpenVINO's own."""
        return metadata.version("openvino")

    def problem(self) -> str | None:
        """That the package is missing, or finds no device."""
        try:
            names = self.device_names()
        except ImportError as e:
            return f"the package openvino is missing ({e}); to get it: {self.install}"
        except Exception as e:  # the library's own
            return f"OpenVINO does not start: {said(e)}"
        return None if names else "OpenVINO finds no device here"

    def device_names(self) -> list[str]:
        """OpenVINO's devices, the CPU first."""
        import openvino  # an extra

        names = [str(name) for name in openvino.Core().available_devices]
        return sorted(names, key=lambda name: name != "CPU")

    def options(self, device: int, wanted: DeviceOptions) -> dict[str, str]:
        """The precision to compute in."""
        del device
        return {"INFERENCE_PRECISION_HINT": HINTS.get(wanted.precision, "f32")}

    def start(
        self,
        path: BundleFile,
        options: OrtOptions,
        device: int = 0,
        wanted: DeviceOptions = DEFAULT,
    ) -> OrtSession:
        """A compiled graph with the methods of a session of ONNX Runtime that fmrt calls."""
        name, cores = self.device_names()[device], available_cores()
        given: dict[str, Any] = dict(self.options(device, wanted))
        if name == "CPU":
            threads = options.intra_op_num_threads
            # As on ONNX Runtime: one batch per core, or all threads inside one.
            given["NUM_STREAMS"] = max(1, cores // threads)
            given["INFERENCE_NUM_THREADS"] = max(cores, threads)
        return _Graph(path, name, given)

    def open(
        self,
        path: BundleFile,
        output: str,
        device: int,
        wanted: DeviceOptions,
        intra_op_threads: int,
    ) -> Session:
        """A session that takes its inputs from host memory."""
        session = self.start(path, session_options(intra_op_threads), device, wanted)
        return HostSession(session, output)


PROVIDER = OpenVino("openvino", "OpenVINO", 'pip install "fmrt[openvino]"')


class _Graph:
    """A graph that OpenVINO compiled; `run` is safe from many threads.

    Raises:
        BundleCorruptError: OpenVINO cannot read or compile it.
    """

    def __init__(self, path: BundleFile, device: str, options: Mapping[str, Any]) -> None:
        with needing("Provider openvino", "openvino"):
            import openvino  # an extra
        if isinstance(path, Member):
            raise ProviderError(
                f"OpenVINO reads no graph of a single file such as {path.archive.path}; make a "
                "directory of it with fmrt package FILE DIR"
            )
        try:
            compiling = openvino.Core().compile_model
            self._compiled = native.call(compiling, str(path), device, dict(options))
        except Exception as e:  # the library's own errors
            raise BundleCorruptError(f"OpenVINO cannot load {path}: {said(e)}") from e
        native.bind(self._compiled)
        # The library makes its table of types when it is first asked, and two threads that ask at
        # the same time wait for each other for ever: one has the interpreter, the other the table.
        for port in (*self._compiled.inputs, *self._compiled.outputs):
            port.element_type.to_dtype()
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._outputs = {port.any_name: port for port in self._compiled.outputs}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Some outputs of one batch, in their order."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(dict(feeds), share_inputs=True)
            return [request.get_tensor(self._outputs[name]).data.copy() for name in outputs]
        finally:
            self._idle.put(request)

    def get_inputs(self) -> list[SimpleNamespace]:
        """Names and types of the inputs."""
        return [_described(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Names and types of the outputs."""
        return [_described(port) for port in self._compiled.outputs]

    def get_overridable_initializers(self) -> list[SimpleNamespace]:
        """None: OpenVINO makes inputs of them."""
        return []

    def get_session_options(self) -> SimpleNamespace:
        """What says that a forked process cannot share this graph."""
        return SimpleNamespace(intra_op_num_threads=0)


def _described(port: Any) -> SimpleNamespace:  # noqa: ANN401  # openvino.ConstOutput
    kind = port.element_type.get_type_name()
    return SimpleNamespace(name=port.any_name, type=TYPES.get(kind, kind))
