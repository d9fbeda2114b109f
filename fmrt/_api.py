"""The one place where the runtime calls the exporter, and only when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmrt.bundle import Bundle
from fmrt.extras import needing


def export_model(model: str | Path, out: str | Path, **options: Any) -> Bundle:
    """Export a Hugging Face model to a bundle; see `fmrt.export.export_model` for the options.

    Raises:
        MissingExtraError: torch, transformers or another package of ``fmrt[export]`` is missing.
        ExportError: The model cannot be exported, with the reason.
        QuantizationError: A quantized variant is not good enough; the bundle has the others.
    """
    with needing("Exporting a model", "export"):
        from fmrt.export import export_model as run  # noqa: PLC0415
    return run(model, out, **options)


def quantize_bundle(bundle: str | Path, schemes: str | Sequence[str], **options: Any) -> Bundle:
    """Add quantized variants to a bundle; see `fmrt.export.quantize_bundle` for the options.

    Raises:
        MissingExtraError: A package of ``fmrt[quantize]`` is missing.
        QuantizationError: A variant is not good enough; the error names those that were added.
    """
    with needing("Quantizing a bundle", "quantize"):
        from fmrt.export import quantize_bundle as run  # noqa: PLC0415
    return run(bundle, schemes, **options)
