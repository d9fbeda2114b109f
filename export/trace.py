"""A torch module -> an ONNX graph, through transformers' exporter."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import Dim
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

from export.heads import TextEmbedding
from export.quiet import quiet
from fmrt.errors import ExportError

PROMPT_LENGTH = "prompt_length"
# Below 18 torch's converter has no operators; ONNX Runtime of our range runs up to 24.
OPSETS = range(18, 25)


def trace(model: TextEmbedding, inputs: dict[str, Tensor], opset: int | None) -> ir.Model:
    """Convert to a portable graph whose batch and sequence axes are free.

    Args:
        model: gives the outputs by name.
        inputs: an example batch by name; 2-D inputs are ``[batch, sequence]``.
        opset: ONNX opset version, or None for the converter's own default.

    Raises:
        ExportError: the converter cannot convert this architecture.
    """
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    shapes = {name: free if value.ndim > 1 else {} for name, value in inputs.items()}
    try:
        with quiet(), torch.no_grad():
            config = OnnxConfig(dynamic_shapes=shapes, opset_version=opset)
            program: ir.Model = OnnxExporter().export(model, inputs, config).program
    except Exception as e:  # whatever torch.export or the converter raise
        kind = model.config.model_type
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ExportError(f"torch cannot convert a {kind} model to ONNX: {reason}") from e
    if PROMPT_LENGTH in inputs:
        _make_optional(program, PROMPT_LENGTH)
    return program


def _make_optional(model: ir.Model, name: str) -> None:
    """Give an input the default 0, so that consumers that do not know it can leave it out."""
    value = next(i for i in model.graph.inputs if i.name == name)
    value.const_value = ir.tensor([0], dtype=ir.DataType.INT64, name=name)
    model.graph.initializers[name] = value
