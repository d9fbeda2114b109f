"""Exports a Hugging Face model to an fmrt bundle. Needs the packages of ``fmrt[export]``.

``load`` finds the loader of a model's modality: ``text``, ``vision``, ``audio``, ``segmentation``
and ``towers`` make of a directory that ``loading`` has read a torch module that ends in the
embedding. ``trace`` makes a graph of it, ``rewrite`` speeds that up for one execution provider,
``writing`` writes the other files, and ``bundle`` runs these in order. ``quantize`` adds smaller
variants to a finished bundle, and ``package`` takes the fewest files of one; both need no torch.
``adopt`` makes a bundle of graphs that other tools exported. The result's only contract with the
runtime is the bundle itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fmrt.export.adopt.bundle import adopt_onnx
    from fmrt.export.bundle import export_model
    from fmrt.export.package import package_bundle
    from fmrt.export.quantize import quantize_bundle

__all__ = ["adopt_onnx", "export_model", "package_bundle", "quantize_bundle"]
_HOMES = {
    "adopt_onnx": "adopt.bundle",
    "export_model": "bundle",
    "package_bundle": "package",
    "quantize_bundle": "quantize",
}


def __getattr__(name: str) -> object:
    """Import what is asked for and nothing else: `quantize_bundle` runs without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"fmrt.export.{_HOMES[name]}"), name)
