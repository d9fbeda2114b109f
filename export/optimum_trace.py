"""A torch module -> an ONNX graph, through optimum-onnx, where transformers is held at 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from fmrt.export.part import Part

# What torch's converter of traces writes, where no other is asked for.
OPSET = 18


def convert_by_optimum(part: Part, opset: int | None) -> ir.Model:
    """Convert with optimum's patches of the part's transformers model.

    Args:
        part: The tower or head.
        opset: The ONNX opset version, or None for `OPSET`.
    """
    names = list(part.inputs)
    outputs = _output_names(part)
    axes = {n: {a: f"{n}_{a}" for a in part.axes.get(n, ())} for n in names}
    with TemporaryDirectory() as folder, _patched(part.module):
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            _ByPosition(part.module, names),
            tuple(part.inputs.values()),
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes={**axes, **{name: {0: "batch"} for name in outputs}},
            opset_version=opset or OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
        program = ir.load(path)
        ir.external_data.load_to_model(program)
    return program


class _ByPosition(torch.nn.Module):
    """A module whose inputs have places, since the converter of traces knows no other by name."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the module."""
        outputs: dict[str, torch.Tensor] = self.module(**dict(zip(self.names, values, strict=True)))
        return outputs


def _output_names(part: Part) -> list[str]:
    with torch.no_grad():
        return list(part.module(**part.inputs))


@contextmanager
def _patched(module: torch.nn.Module) -> Iterator[None]:
    """Optimum's patches for the architecture of the transformers model in a module."""
    backbone = next((m for m in module.modules() if isinstance(m, PreTrainedModel)), None)
    if backbone is None:
        yield
        return
    patcher = _patcher(backbone)
    with patcher:
        # Optimum's own leaves out outputs that its task does not name, such as a pooled one.
        backbone.forward = patcher.orig_forward
        yield


def _patcher(backbone: PreTrainedModel) -> Any:  # noqa: ANN401  # optimum's patcher of a model
    from optimum.exporters.onnx.model_patcher import ModelPatcher
    from optimum.exporters.tasks import TasksManager

    try:
        make = TasksManager.get_exporter_config_constructor(
            exporter="onnx",
            model_type=backbone.config.model_type,
            task="feature-extraction",
            library_name="transformers",
        )
    except (KeyError, ValueError):
        return ModelPatcher(SimpleNamespace(PATCHING_SPECS=None), backbone)
    return make(backbone.config).patch_model_for_export(backbone)
