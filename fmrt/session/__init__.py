"""ONNX Runtime sessions: providers, devices, memory, and no silent fallback.

Nothing outside this package imports ONNX Runtime.
"""

from fmrt.session.all_cores import AllCores
from fmrt.session.base import Session
from fmrt.session.creation import built_in_providers, runtime_version
from fmrt.session.device_options import DeviceOptions
from fmrt.session.features import FeatureSession
from fmrt.session.flops import Products, count_products, fit
from fmrt.session.opening import open_session
from fmrt.session.placement import Placement, node_placement
from fmrt.session.product import product_runner
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
    "FeatureSession",
    "Placement",
    "Products",
    "Provider",
    "Session",
    "Target",
    "built_in_providers",
    "count_products",
    "every_provider",
    "fit",
    "node_placement",
    "open_session",
    "preferred_precisions",
    "product_runner",
    "resolve_provider",
    "runtime_version",
]
