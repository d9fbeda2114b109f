"""This machine and the software on it, as a report of a problem needs them.

ONNX Runtime is imported only when it is asked for, so that one that does not load is reported too.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from fmrt._version import __version__
from fmrt.system.cache_directory import cache_directory
from fmrt.system.cores import available_cores, cgroup_quota, cpu_flags, cpu_name
from fmrt.system.memory import Memory, main_memory

# Variables that choose the kernels of NumPy, OpenBLAS, MKL, BLIS and oneDNN.
KERNEL_VARIABLES = (
    "BLIS_ARCH_TYPE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
# Those whose kernels ONNX Runtime has for matrix products, as Linux names them: x86, then ARM.
INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime.

    Attributes:
        version: None where it cannot be imported.
        providers: The providers that it was built with, by ONNX Runtime's names.
        packages: Installed packages whose names begin with onnxruntime, plug-ins too, and their
            versions.
        error: Why it cannot be imported, or None.
    """

    version: str | None
    providers: list[str]
    packages: dict[str, str]
    error: str | None = None


@dataclass(frozen=True)
class Machine:
    """What is known of this machine and process; made by `describe`.

    Attributes:
        fmrt: The version of fmrt.
        python: The version and implementation of Python.
        platform: The operating system, its version and the processor's architecture.
        cpu: The name of the processor.
        instruction_sets: The processor's instruction sets that matter for speed and rounding.
        cores: The cores that this process may use.
        logical_cores: The machine's logical cores.
        quota: The cores that the cgroup allows; None without a limit.
        memory: Main memory.
        onnxruntime: The runtime that computes.
        packages: fmrt's requirements and those of its extras, with their versions; None where one
            is not installed.
        environment: The variables of this process that choose kernels.
        cache: The directory that ``FMRT_CACHE`` names, or its default.
    """

    fmrt: str
    python: str
    platform: str
    cpu: str
    instruction_sets: list[str]
    cores: int
    logical_cores: int | None
    quota: float | None
    memory: Memory
    onnxruntime: Runtime
    packages: dict[str, str | None]
    environment: dict[str, str]
    cache: str


@dataclass(frozen=True)
class Availability:
    """One execution provider on this machine.

    Attributes:
        name: The name that ``--provider`` takes.
        onnxruntime: ONNX Runtime's name.
        devices: Names of its devices in the order of their indices; empty where it cannot be had.
        problem: Why it cannot be had and what to do; None where it can.
    """

    name: str
    onnxruntime: str
    devices: list[str]
    problem: str | None


def describe() -> Machine:
    """Describe this machine; no model is loaded."""
    return Machine(
        fmrt=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        platform=platform.platform(),
        cpu=cpu_name(),
        instruction_sets=_instruction_sets(),
        cores=available_cores(),
        logical_cores=os.cpu_count(),
        quota=cgroup_quota(),
        memory=main_memory(),
        onnxruntime=_runtime(),
        packages=_packages(),
        environment=kernel_environment(),
        cache=str(cache_directory()),
    )


def availabilities() -> list[Availability]:
    """Every provider that this machine could have, the CPU first."""
    from fmrt.session import every_provider  # ONNX Runtime may not load

    found = []
    for provider in every_provider().values():
        problem = provider.problem()
        devices = provider.device_names() if problem is None else []
        found.append(Availability(provider.name, provider.ort_name, devices, problem))
    return found


def kernel_environment() -> dict[str, str]:
    """The variables of this process that choose kernels, for the record of a measurement."""
    return {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ}


def _instruction_sets() -> list[str]:
    """The CPU's instruction sets, by Linux's names on Linux, and elsewhere by NumPy's levels."""
    has = cpu_flags()
    if has is None:
        extensions: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]  # dicts give one
        found = extensions.get("SIMD Extensions", {})
        return [*found.get("baseline", ()), *found.get("found", ())]
    return [name for name in INSTRUCTION_SETS if name in has]


def _runtime() -> Runtime:
    named = ((d.name, d.version) for d in metadata.distributions() if d.name)
    packages = dict(sorted(one for one in named if one[0].startswith("onnxruntime")))
    try:
        from fmrt.session import built_in_providers, runtime_version  # may not load
    except Exception as e:  # whatever a broken installation provokes is what is reported
        return Runtime(None, [], packages, str(e).partition("\n")[0] or type(e).__name__)
    return Runtime(runtime_version(), built_in_providers(), packages)


def _packages() -> dict[str, str | None]:
    return {name: _version(name) for name in sorted(set(_requirements()))}


def _requirements() -> Iterator[str]:
    """Names of what the installed fmrt requires, with all its extras; none where it is a folder."""
    try:
        lines = metadata.requires("fmrt") or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        if name is not None and name[0] != "fmrt":
            yield name[0]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
