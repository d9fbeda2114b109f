"""What fmrt asks of an execution provider. A provider is one file here and one row of the table."""

from __future__ import annotations

import onnxruntime as ort

from fmrt.errors import ProviderError
from fmrt.session.base import Session
from fmrt.session.creation import create, runtime_version
from fmrt.session.device_options import DeviceOptions
from fmrt.session.diagnosis import wheel_problem
from fmrt.session.ort_types import OrtOptions, OrtSession
from fmrt.system.archive import BundleFile

DEFAULT = DeviceOptions()


class Provider:
    """An execution provider of ONNX Runtime.

    Args:
        name: The name that ``provider=`` and ``--provider`` take.
        ort_name: ONNX Runtime's name of the provider.
        install: The command that installs it.

    Attributes:
        precisions: The precisions that need no asking, best first; a bundle's variant is chosen by
            them.
        on_host: Whether batches are computed by the cores that this process runs on.
        tuned: Whether ``fmrt tune`` measures it.
        checks_batches: Whether its kernels are chosen by a batch's shape, so that a check takes
            batches of several shapes.
        memory: ONNX Runtime's name of its devices' memory; None where that is the host's.
        records_graphs: Whether sessions can record CUDA graphs.
        disabled: ONNX Runtime's fusions that are slower than what they replace.
    """

    precisions: tuple[str, ...] = ("fp32",)
    on_host = False
    tuned = False
    checks_batches = False
    records_graphs = False
    memory: str | None = None
    disabled: tuple[str, ...] = ()

    def __init__(self, name: str, ort_name: str, install: str) -> None:
        self.name = name
        self.ort_name = ort_name
        self.install = install

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def problem(self) -> str | None:
        """Why this provider cannot be had here, and what to do; None when it can."""
        if self.ort_name in ort.get_available_providers():
            return None
        return f"{wheel_problem(self.ort_name)}; to get it: {self.install}"

    def version(self) -> str:
        """The version of the software that computes."""
        return runtime_version()

    def device_names(self) -> list[str]:
        """Names of the devices that this process may use, in the order of their indices."""
        return [self.name]

    def device_model(self, device: int) -> str | None:  # noqa: ARG002
        """The model of a device whose kernels differ by it; None where that is not known."""
        return None

    def device_address(self, device: int) -> str | None:  # noqa: ARG002
        """How the driver's own tools call a device; None where they do not."""
        return None

    def options(self, device: int, wanted: DeviceOptions) -> dict[str, str]:  # noqa: ARG002
        """ONNX Runtime's options of this provider for one device."""
        return {}

    def start(
        self,
        path: BundleFile,
        options: OrtOptions,
        device: int = 0,
        wanted: DeviceOptions = DEFAULT,
    ) -> OrtSession:
        """A session of ONNX Runtime on one device, or an error: never on another provider.

        Raises:
            BundleCorruptError: ONNX Runtime cannot load the graph.
            ProviderError: The session did not get this provider.
        """
        given = [(self.ort_name, self.options(device, wanted))]
        return create(path, self, options, given)

    def open(
        self,
        path: BundleFile,
        output: str,
        device: int,
        wanted: DeviceOptions,
        intra_op_threads: int,
    ) -> Session:
        """A graph on one device.

        Args:
            path: The ``.onnx`` file.
            output: The name of the output to compute.
            device: The index of the device, below the number of `device_names`.
            wanted: What the user says about devices.
            intra_op_threads: The number of threads inside one operator, where cores compute.

        Raises:
            BundleCorruptError: ONNX Runtime cannot load the graph.
            ProviderError: The session did not get this provider.
        """
        raise NotImplementedError

    def choose(self, spec: str, devices: str) -> tuple[int, ...]:
        """Indices of the devices that a user names.

        Args:
            spec: The whole text that the user wrote, for the error.
            devices: The devices: ``""`` for the first, ``all``, or indices joined with commas.

        Raises:
            ProviderError: A named device does not exist.
        """
        names = self.device_names()
        wanted = range(len(names)) if devices == "all" else map(int, (devices or "0").split(","))
        chosen = tuple(dict.fromkeys(wanted))
        missing = [str(device) for device in chosen if device >= len(names)]
        if missing:
            has = ", ".join(str(i) for i in range(len(names)))
            raise ProviderError(
                f"provider {spec!r}: no {self.name.upper()} device {' and '.join(missing)}; this "
                f"machine has {has}{self.counting}"
            )
        return chosen

    @property
    def counting(self) -> str:
        """What else decides which devices there are, for an error's end."""
        return ""
