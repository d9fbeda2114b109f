"""The one place where the runtime calls the exporter or evaluates, and only when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.bundle.bundle import Bundle
from fmrt.options import checked
from fmrt.system.extras import needing

if TYPE_CHECKING:
    from fmrt.evaluation import Evaluation
    from fmrt.export.original import Encode

# Half a point of an accuracy.
TOLERANCE = 0.005


def export_model(model: str | Path, out: str | Path, **options: Any) -> Bundle:
    """Export a Hugging Face model to a bundle; see `fmrt.export.export_model` for the options.

    Raises:
        MissingExtraError: torch, transformers or another package of ``fmrt[export]`` is missing.
        ExportError: The model cannot be exported, with the reason.
        QuantizationError: A quantized variant is not good enough; the bundle has the others.
    """
    with needing("Exporting a model", "export"):
        from fmrt.export import export_model as run
    return run(model, out, **options)


def adopt_onnx(graphs: str | Path, out: str | Path, **options: Any) -> Bundle:
    """Make a bundle of another tool's ONNX graphs; see `fmrt.export.adopt_onnx` for the options.

    Raises:
        MissingExtraError: torch, transformers or another package of ``fmrt[export]`` is missing.
        ExportError: The graphs cannot be adopted, with the reason.
    """
    with needing("Adopting ONNX graphs", "export"):
        from fmrt.export import adopt_onnx as run
    return run(graphs, out, **options)


def quantize_bundle(
    bundle: str | Path,
    schemes: str | Sequence[str],
    *,
    evaluate: Any = None,  # noqa: ANN401  # a data set of an extra
    tolerance: float = TOLERANCE,
    **options: Any,
) -> Bundle:
    """Add quantized variants to a bundle; see `fmrt.export.quantize_bundle` for the options.

    Args:
        bundle: Directory of the bundle, or its hub id.
        schemes: Such as ``int8``, or several.
        evaluate: A data set, as `evaluate` takes it: a variant is added if it keeps fp32's measures
            on it, in place of ``min_cosine``.
        tolerance: The largest loss of a measure that is accepted in any case; a larger one is
            accepted if it cannot be told from zero.
        options: Further ones of `fmrt.export.quantize_bundle`.

    Raises:
        MissingExtraError: A package of ``fmrt[quantize]`` or ``fmrt[evaluate]`` is missing.
        QuantizationError: A variant is not good enough; the error names those that were added.
        DataError: The data set cannot be used.
    """
    checked(tolerance=tolerance)
    if evaluate is not None:
        with needing("Evaluating", "evaluate"):
            from fmrt.evaluation import judge
        opened = Bundle.opened(bundle, options.get("sha256"), options.get("revision"))
        options["judge"] = judge(opened, evaluate, tolerance)
    with needing("Quantizing a bundle", "quantize"):
        from fmrt.export import quantize_bundle as run
    return run(bundle, schemes, **options)


def package_bundle(bundle: str | Path, out: str | Path, **options: Any) -> Bundle:
    """Write the smallest runnable set of files; see `fmrt.export.package_bundle` for the options.

    Raises:
        MissingExtraError: A package of ``fmrt[quantize]`` is missing.
        ExportError: The package cannot be written, or its vectors are others.
    """
    with needing("Packaging a bundle", "quantize"):
        from fmrt.export import package_bundle as run
    return run(bundle, out, **options)


def original_model(name: str, revision: str | None, max_length: int) -> Encode:
    """The PyTorch model of a text bundle; see `fmrt.export.original.text_model`.

    Raises:
        MissingExtraError: a package of ``fmrt[export]`` is missing.
        ExportError: no such model, or none of texts.
    """
    with needing("Comparing with PyTorch", "export"):
        from fmrt.export.original import text_model
    return text_model(name, revision, max_length)


def evaluate(bundles: Any, data: Any, **options: Any) -> Evaluation:  # noqa: ANN401
    """Embed a data set with bundles, and test the embeddings; see `fmrt.evaluation.evaluate`.

    Raises:
        MissingExtraError: a package of ``fmrt[evaluate]`` is missing.
        DataError: no such data set, or it does not do for a task that is named, or for any.
        InputError: an item cannot be used, and ``on_error`` is ``fail``.
    """
    with needing("Evaluating", "evaluate"):
        from fmrt.evaluation import evaluate as run
    return run(bundles, data, **options)


def draw_map(bundle: Any, data: Any, out: Any, **options: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Draw a data set as a map of its embeddings; see `fmrt.evaluation.map.draw_map`.

    Returns:
        Lines: what was decided about the data, and what is not shown in full.

    Raises:
        MissingExtraError: a package of ``fmrt[evaluate]`` is missing.
        DataError: no such data set, or it cannot be drawn, or ``out`` cannot be written.
        InputError: an item cannot be used, and ``on_error`` is ``fail``.
    """
    with needing("Drawing a map", "evaluate"):
        from fmrt.evaluation.map import draw_map as run
    return run(bundle, data, out, **options)
