"""ONNX Runtime sessions: providers, devices, memory, and no silent fallback.

Nothing outside this package imports ONNX Runtime.
"""

from fmrt.session.alone import Alone
from fmrt.session.creation import runtime_version
from fmrt.session.features import FeatureSession
from fmrt.session.flops import Products, count_products, fit
from fmrt.session.host import SLOW_CPU_FUSIONS
from fmrt.session.opening import DeviceOptions, Session, open_session
from fmrt.session.placement import Placement, node_placement
from fmrt.session.providers import PROVIDERS, Provider, Target, resolve_provider

__all__ = [
    "PROVIDERS",
    "SLOW_CPU_FUSIONS",
    "Alone",
    "DeviceOptions",
    "FeatureSession",
    "Placement",
    "Products",
    "Provider",
    "Session",
    "Target",
    "count_products",
    "fit",
    "node_placement",
    "open_session",
    "resolve_provider",
    "runtime_version",
]
