"""Says why a quantized graph's vectors are not PyTorch's, by the reference item that is worst."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fmrt.bundle.bundle import Reference
from fmrt.embedding.engine import Engine
from fmrt.export.quantize.context import Context
from fmrt.export.quantize.probe import Probe
from fmrt.verify import measure, reference_vectors

NAMES = {"text": "text", "image": "image", "audio": "sound"}
SHOWN = 40
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def why_refused(context: Context, model: ir.Model, engine: Engine, reference: Reference) -> str:
    """One line about an engine whose vectors are beyond the tolerance.

    Args:
        context: The context of the quantization.
        model: The quantized graph, which ``engine`` runs.
        engine: The engine over the bundle as it would be.
        reference: The reference that it failed on.
    """
    expected = reference.embeddings
    vectors = reference_vectors(engine, reference)
    parity = measure(vectors, expected)
    cosines = [measure(*pair).min_cosine for pair in zip(vectors, expected, strict=True)]
    worst = int(np.argmin(cosines))
    item, name = reference.items[worst], NAMES[context.tower.modality]
    shown = f"the {name} {item[:SHOWN]!r}" if isinstance(item, str) else f"{name} {worst + 1}"
    said = (
        f"not PyTorch's vectors: max abs error {parity.max_abs_error:.2g}, worst cosine "
        f"{parity.min_cosine:.6f}, of {shown} of the reference"
    )
    if not expected[worst].any():
        return (
            f"{said}. PyTorch's vector of it is zero, as of a model without biases, and what "
            "rounding leaves instead of zero is scaled up by each normalization; take fp16"
        )
    moved, choices = _chosen_otherwise(context, model, reference, worst)
    if moved:
        return (
            f"{said}. Rounding changes {moved} of its {choices:,} choices of experts (TopK), and "
            "with them whole layers; take a scheme of more bits"
        )
    return said


def _chosen_otherwise(
    context: Context, model: ir.Model, reference: Reference, row: int
) -> tuple[int, int]:
    """Rows of all ``TopK`` over floats in which the two graphs choose otherwise; all rows."""
    names = [name for name in _choices(context.base) if name in _choices(model)]
    if not names:
        return 0, 0
    probe = Probe(context.bundle, context.tower, [reference.items[row]], reference.prompts[row])
    before, after = (probe.values(graph, names) for graph in (context.base, model))
    moved = [(np.sort(before[name]) != np.sort(after[name])).any(axis=-1) for name in names]
    return sum(int(rows.sum()) for rows in moved), sum(rows.size for rows in moved)


def _choices(model: ir.Model) -> list[str]:
    """Names of the indices of the largest of some floats; sorting whole numbers is no choice."""
    found = (node for node in model.graph if node.op_type == "TopK")
    return [
        str(node.outputs[1].name)
        for node in found
        if node.inputs[0] is not None and node.inputs[0].dtype in FLOATS
    ]
