"""The one place where the runtime calls the exporter, and only when asked to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmrt.bundle import Bundle
from fmrt.errors import MissingExtraError


def export_model(model: str | Path, out: str | Path, **options: Any) -> Bundle:  # noqa: ANN401
    """Export a Hugging Face model to a bundle; see `export.export_model` for the options.

    Raises:
        MissingExtraError: torch, transformers or another package of ``fmrt[export]`` is missing.
        ExportError: the model cannot be exported, with the reason.
    """
    try:
        from export import export_model as run  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise MissingExtraError("Exporting a model", "export", e.name) from e
    return run(model, out, **options)
