"""Which provider runs each node of a graph, as ONNX Runtime assigned them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fmrt.errors import ProviderError
from fmrt.session.creation import session_options
from fmrt.session.providers import Target, every_provider
from fmrt.system.archive import BundleFile


@dataclass(frozen=True)
class Placement:
    """Operators of a graph by the provider that runs them.

    Attributes:
        wanted: The provider that was asked for.
        nodes: How many nodes of each operator each provider runs.
    """

    wanted: str
    nodes: Mapping[str, Mapping[str, int]]

    @property
    def fallback(self) -> Mapping[str, int]:
        """Operators that another provider than the wanted one runs, with their number."""
        others = (ops for name, ops in self.nodes.items() if name != self.wanted)
        return sum((Counter(ops) for ops in others), Counter())

    @property
    def total(self) -> int:
        """Nodes of the graph."""
        return sum(sum(ops.values()) for ops in self.nodes.values())

    def __str__(self) -> str:
        own = self.total - sum(self.fallback.values())
        text = f"{own:,} of {self.total:,} nodes on {self.wanted}"
        if self.fallback:
            counts = sorted(self.fallback.items(), key=lambda item: (-item[1], item[0]))
            text += "; fell back: " + ", ".join(f"{op} x{count}" for op, count in counts)
        return text


def node_placement(path: BundleFile, target: Target) -> Placement:
    """Load a graph and ask ONNX Runtime where its nodes, after its own fusions, are to run.

    Args:
        path: The ``.onnx`` file.
        target: The target from `resolve_provider`; its first device.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        ProviderError: The provider cannot be had, or this ONNX Runtime does not tell (before 1.24).
    """
    options = session_options(record_placement=True)
    session = target.provider.start(path, options, target.devices[0])
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise ProviderError(
            f"provider {target.name!r} does not tell where nodes run, or a newer one does: "
            f"{target.provider.install} -U"
        )
    ours = {provider.ort_name: provider.name for provider in every_provider().values()}
    nodes: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts = nodes.setdefault(ours.get(part.ep_name, part.ep_name), Counter())
        counts.update(node.op_type for node in part.get_nodes())
    return Placement(target.name, {name: dict(counts) for name, counts in nodes.items()})
