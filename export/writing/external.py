"""Which graphs have their weights in a second file, as transformers.js is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fmrt.bundle.manifest import Variant

# In ``transformers.js_config`` of ``config.json``.
KEY = "use_external_data_format"


def external_files(variants: Iterable[Variant]) -> dict[str, int]:
    """The number of such files by the name of a graph, unless the graph is for GPUs alone."""
    return {Path(v.file).name: 1 for v in variants if v.external and v.provider != "cuda"}
