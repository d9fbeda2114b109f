"""Providers that packages of their own bring for ONNX Runtime's stock wheel.

A package such as ``onnxruntime-ep-openvino`` holds a library, and functions that tell its path and
the providers in it. Whichever is installed is found by its name, ``openvino``; vectors are checked
at load as on any provider.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Mapping
from typing import Any

import onnxruntime as ort

from fmrt.session.base import Session
from fmrt.session.creation import create, session_options
from fmrt.session.device_options import DeviceOptions
from fmrt.session.host import HostSession
from fmrt.session.log import silent
from fmrt.session.ort_types import OrtDevice, OrtOptions, OrtSession
from fmrt.session.providers.base import DEFAULT, Provider
from fmrt.system.archive import BundleFile

# How the import packages of plug-ins begin; what follows is the provider's name.
PREFIXES = ("onnxruntime_ep_", "onnxruntime_")
# What a package must have to be a plug-in.
INTERFACE = ("get_library_path", "get_ep_names")
# Batches at the same time: one is computed while Python gathers the next.
STREAMS = 2
# Options under which a provider computes fp32 graphs in fp32, where its default is less. OpenVINO
# takes bf16 on CPUs that have it (ov::hint::inference_precision).
EXACT: Mapping[str, Mapping[str, str]] = {
    "openvino": {
        "load_config": json.dumps(
            {device: {"INFERENCE_PRECISION_HINT": "f32"} for device in ("CPU", "GPU")}
        )
    }
}


class Plugin(Provider):
    """A provider of an installed package.

    Args:
        name, ort_name, install: The name, ONNX Runtime's name and the command that installs it, as
            for every provider.
        package: The package that is imported for it.
    """

    def __init__(self, name: str, ort_name: str, install: str, package: str) -> None:
        super().__init__(name, ort_name, install)
        self.package = package

    def problem(self) -> str | None:
        """Why the library cannot be loaded, or that it finds no device."""
        problem = _registered(self.package)
        if problem is not None:
            return f"{self.package} cannot be loaded: {problem}; to get it again: {self.install}"
        return None if self._devices() else f"{self.package} finds no device that it runs on here"

    def device_names(self) -> list[str]:
        """What the library says of each of its devices."""
        return [_name(device) for device in self._devices()]

    def options(self, device: int, wanted: DeviceOptions) -> dict[str, str]:
        """Those that keep fp32 graphs in fp32."""
        del device
        return {} if wanted.precision == "bf16" else dict(EXACT.get(self.name, {}))

    def start(
        self,
        path: BundleFile,
        options: OrtOptions,
        device: int = 0,
        wanted: DeviceOptions = DEFAULT,
    ) -> OrtSession:
        """A session on one of the library's devices, see `Provider.start`."""
        options.add_provider_for_devices([self._devices()[device]], self.options(device, wanted))
        return create(path, self, options)

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
        return HostSession(session, output, workers=STREAMS)

    def _devices(self) -> list[Any]:
        return [d for d in ort.get_ep_devices() if d.ep_name == self.ort_name]


def plugins() -> dict[str, Provider]:
    """The providers of installed packages, by name; none is loaded."""
    found = {}
    for module in pkgutil.iter_modules():
        prefix = next((p for p in PREFIXES if module.name.startswith(p)), None)
        provider = _of_package(module.name, prefix) if prefix and module.ispkg else None
        if provider is not None:
            found[provider.name] = provider
    return found


@functools.cache
def _of_package(package: str, prefix: str) -> Provider | None:
    """The provider that a package brings, or None where it is no plug-in."""
    name = package.removeprefix(prefix).replace("_", "-")
    install = f"pip install -U {package.replace('_', '-')}"
    try:
        module = importlib.import_module(package)
        if not all(hasattr(module, function) for function in INTERFACE):
            return None
        return Plugin(name, module.get_ep_names()[0], install, package=package)
    except Exception:  # whatever a stranger's package raises; `problem` says it
        return Plugin(name, "", install, package=package) if prefix == PREFIXES[0] else None


@functools.cache
def _registered(package: str) -> str | None:
    """Register a package's library with ONNX Runtime; why that failed, or None."""
    try:
        path = importlib.import_module(package).get_library_path()
        with silent():
            ort.register_execution_provider_library(package, path)
    except Exception as e:  # the package's own errors, and ONNX Runtime's
        return str(e).strip().partition("\n")[0]
    return None


def _name(device: OrtDevice) -> str:
    """What a person calls a device."""
    facts = {**device.device.metadata, **device.ep_metadata}
    known = (facts.get(key) for key in ("FULL_DEVICE_NAME", "Description"))
    return next(filter(None, known), f"{device.device.vendor} {device.device.type.name}")
