"""ONNX Runtime sessions: providers, devices, memory, and no silent fallback.

Nothing outside this package imports ONNX Runtime. What embedding needs is imported here; what
measures and segments, and what a GPU alone needs, is in modules of its own: `features`, `flops`,
`graphed`, `placement`, `product`.
"""

from fmrt.session.all_cores import AllCores
from fmrt.session.base import Session
from fmrt.session.creation import built_in_providers, runtime_version
from fmrt.session.device_options import DeviceOptions
from fmrt.session.opening import open_session
from fmrt.session.providers import (
    CPU,
    PROVIDERS,
    SLOW_CPU_FUSIONS,
    Provider,
    Target,
    every_provider,
    preferred_precisions,
    resolve_provider,
)

__all__ = [
    "CPU",
    "PROVIDERS",
    "SLOW_CPU_FUSIONS",
    "AllCores",
    "DeviceOptions",
    "Provider",
    "Session",
    "Target",
    "built_in_providers",
    "every_provider",
    "open_session",
    "preferred_precisions",
    "resolve_provider",
    "runtime_version",
]
