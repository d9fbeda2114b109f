"""Exports a Hugging Face model to an fmrt bundle. Needs the packages of ``fmrt[export]``.

``source`` reads a model and what its directory says about embeddings, ``heads`` ends the backbone
in the embedding, ``trace`` makes the graph, ``rewrite`` speeds it up for one execution provider,
``reference`` takes vectors from PyTorch, ``layout`` writes the directory, and ``bundle`` runs these
in order. ``quantize`` adds smaller variants to a finished bundle, and needs no torch. The result's
only contract with the runtime is the bundle itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmrt.export.bundle import export_model
    from fmrt.export.quantize import quantize_bundle

__all__ = ["export_model", "quantize_bundle"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what is asked for and nothing else: `quantize_bundle` runs without torch."""
    if name == "export_model":
        from fmrt.export.bundle import export_model  # noqa: PLC0415

        return export_model
    if name == "quantize_bundle":
        from fmrt.export.quantize import quantize_bundle  # noqa: PLC0415

        return quantize_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
