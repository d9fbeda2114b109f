"""Which provider and which devices: what a user writes, and whether it can be had."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import onnxruntime as ort

from fmrt.errors import ProviderError, ProviderWarning
from fmrt.options import checked
from fmrt.session.diagnosis import cuda_device_count, has_nvidia_driver, load_problem, wheel_problem

INSTALL_CUDA = 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: ours.
        ort_name: ONNX Runtime's.
        install: how to get it.
        library: of the ONNX Runtime wheel that is loaded when a session starts; None when built in.
    """

    name: str
    ort_name: str
    install: str
    library: str | None = None


PROVIDERS = {
    p.name: p
    for p in (
        Provider("cpu", "CPUExecutionProvider", "pip install onnxruntime"),
        Provider("cuda", "CUDAExecutionProvider", INSTALL_CUDA, "onnxruntime_providers_cuda"),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            f"{INSTALL_CUDA} tensorrt",
            "onnxruntime_providers_tensorrt",
        ),
    )
}


@dataclass(frozen=True)
class Target:
    """A provider and the devices of it to run on.

    Attributes:
        provider: from `PROVIDERS`.
        devices: indices, one session each; of the CPU always ``(0,)``.
    """

    provider: Provider
    devices: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """The provider's name, ``cuda``."""
        return self.provider.name

    @property
    def spec(self) -> str:
        """What `resolve_provider` makes this target of, ``cuda:0,1``."""
        if self.devices == (0,):
            return self.name
        return f"{self.name}:{','.join(map(str, self.devices))}"


def resolve_provider(spec: str) -> Target:
    """The target that ``spec`` names, once it is known that it can be had.

    Args:
        spec: ``cpu``, ``cuda`` or ``tensorrt``; a device of it, ``cuda:1``; several, ``cuda:0,1``
            or ``cuda:all``; or ``auto``, which is CUDA where it works and else the CPU, with a
            warning when the machine or the ONNX Runtime is made for CUDA.

    Raises:
        OptionError: no text.
        ProviderError: unknown, or it cannot be had, with the reason and what to do.
    """
    checked(provider=spec)
    if spec == "auto":
        return _automatic()
    name, _, devices = spec.partition(":")
    if name not in PROVIDERS or (devices and name == "cpu"):
        raise ProviderError(
            f"unknown provider {spec!r}; choose from: auto, {', '.join(PROVIDERS)}, or devices as "
            "in cuda:1, cuda:0,1 and cuda:all"
        )
    if not re.fullmatch(r"|all|\d+(,\d+)*", devices):
        raise ProviderError(
            f"provider {spec!r}: {devices!r} are no devices; say cuda:1, cuda:0,1 or cuda:all"
        )
    provider = PROVIDERS[name]
    problem = _problem(provider)
    if problem is not None:
        raise ProviderError(f"provider {spec!r} cannot be had: {problem}")
    return Target(provider, _devices(spec, devices) if provider.library else (0,))


def _problem(provider: Provider) -> str | None:
    """Why a provider cannot be had, with what to do; None when it can."""
    if provider.ort_name not in ort.get_available_providers():
        return f"{wheel_problem(provider.ort_name)}; to get it: {provider.install}"
    return load_problem(provider.library, provider.install) if provider.library else None


def _devices(spec: str, devices: str) -> tuple[int, ...]:
    count = cuda_device_count()
    wanted = range(count) if devices == "all" else map(int, (devices or "0").split(","))
    chosen = tuple(dict.fromkeys(wanted))
    missing = [str(device) for device in chosen if device >= count]
    if missing:
        has = ", ".join(map(str, range(count)))
        raise ProviderError(
            f"provider {spec!r}: no CUDA device {' and '.join(missing)}; this machine has {has} "
            "(CUDA_VISIBLE_DEVICES counts)"
        )
    return chosen


_warned: set[str] = set()


def _automatic() -> Target:
    cuda = PROVIDERS["cuda"]
    problem = _problem(cuda)
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
    return Target(PROVIDERS["cpu"])
