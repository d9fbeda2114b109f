"""Execution providers: one file each, with its `PROVIDER`, and one row of the table here.

Providers that installed packages bring for ONNX Runtime need no row, see `plugin`.
"""

from __future__ import annotations

import importlib
import re
import warnings
from typing import NamedTuple, cast

import onnxruntime as ort

from fmrt.errors import ProviderError, ProviderWarning
from fmrt.options import UNNAMED, checked
from fmrt.session.diagnosis import has_nvidia_driver
from fmrt.session.providers.base import Provider
from fmrt.session.providers.cpu import PROVIDER as CPU
from fmrt.session.providers.cpu import SLOW_CPU_FUSIONS

__all__ = [
    "CPU",
    "PROVIDERS",
    "SLOW_CPU_FUSIONS",
    "Provider",
    "Target",
    "every_provider",
    "preferred_precisions",
    "provider_named",
    "resolve_provider",
]

# Names, which are those of the files too. A file is imported when its provider is asked for.
PROVIDERS = (
    "cpu",
    "cuda",
    "tensorrt",
    "openvino",
)


def provider_named(name: str) -> Provider:
    """The provider of a row of the table."""
    return cast("Provider", importlib.import_module(f"{__name__}.{name}").PROVIDER)


class Target(NamedTuple):
    """A provider and the devices of it to run on.

    Attributes:
        provider: The provider from `every_provider`.
        devices: The indices of the devices, one session each; of the CPU always ``(0,)``.
    """

    provider: Provider
    devices: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """The provider's name, ``cuda``."""
        return self.provider.name

    @property
    def device_model(self) -> str | None:
        """The model of its devices; None where that is not known, or they differ."""
        models = {self.provider.device_model(device) for device in self.devices}
        return models.pop() if len(models) == 1 else None

    @property
    def spec(self) -> str:
        """What `resolve_provider` makes this target of, ``cuda:0,1``."""
        if self.devices == (0,):
            return self.name
        return f"{self.name}:{','.join(map(str, self.devices))}"


def every_provider() -> dict[str, Provider]:
    """The table's providers, then those of installed plug-ins, by name.

    Where both have a name, as OpenVINO and its plug-in, it is the table's, unless the plug-in's
    alone can be had.
    """
    from fmrt.session.providers.plugin import plugins

    own = {name: provider_named(name) for name in PROVIDERS}
    found = plugins()
    replaced = {
        name: found[name]
        for name, provider in own.items()
        if name in found and provider.problem() is not None and found[name].problem() is None
    }
    return {**own, **found, **own, **replaced}


def _find(name: str) -> Provider | None:
    """One of `every_provider`; the search for plug-ins, which reads many folders, is avoided."""
    if name in PROVIDERS and provider_named(name).problem() is None:
        return provider_named(name)
    return every_provider().get(name)


def preferred_precisions(name: str) -> tuple[str, ...]:
    """Precisions that a provider takes without being asked for, best first."""
    return provider_named(name).precisions if name in PROVIDERS else Provider.precisions


def resolve_provider(spec: str) -> Target:
    """The target that ``spec`` names, once it is known that it can be had.

    Args:
        spec: The provider: ``cpu``, ``cuda``, ``tensorrt`` or the name of an installed plug-in; a
            device of it, ``cuda:1``; several, ``cuda:0,1`` or ``cuda:all``; or ``auto``, which is
            CUDA where it works and else the CPU, with a warning when the machine or the ONNX
            Runtime is made for CUDA; or ``default``, which is the CPU here.

    Raises:
        OptionError: The value is not a text.
        ProviderError: The provider is unknown, or cannot be had; the message has the reason and
            what to do.
    """
    checked(provider=spec)
    if spec == "auto":
        return _automatic()
    if spec == UNNAMED:
        return Target(CPU)
    name, _, devices = spec.partition(":")
    provider = _find(name)
    if provider is None or (devices and provider is CPU):
        known = ", ".join(every_provider())
        raise ProviderError(
            f"unknown provider {spec!r}; choose from: auto, {known}, or devices as "
            "in cuda:1, cuda:0,1 and cuda:all"
        )
    if not re.fullmatch(r"|all|\d+(,\d+)*", devices):
        raise ProviderError(
            f"provider {spec!r}: {devices!r} are no devices; say {name}:1, {name}:0,1 or {name}:all"
        )
    problem = provider.problem()
    if problem is not None:
        raise ProviderError(f"provider {spec!r} cannot be had: {problem}")
    return Target(provider, provider.choose(spec, devices))


_warned: set[str] = set()


def _automatic() -> Target:
    cuda = provider_named("cuda")
    problem = cuda.problem()
    if problem is None:
        return Target(cuda)
    # With neither a driver nor a wheel for it, the CPU is the best there is, and no fallback.
    wanted = cuda.ort_name in ort.get_available_providers() or has_nvidia_driver()
    if wanted and problem not in _warned:
        _warned.add(problem)
        warnings.warn(
            f"provider 'auto' uses the CPU, CUDA cannot be had: {problem}",
            ProviderWarning,
            stacklevel=2,
        )
    return Target(CPU)
