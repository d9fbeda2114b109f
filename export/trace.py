"""A torch module -> an ONNX graph, through transformers' exporter, or through optimum's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch.export import Dim

from fmrt.errors import ExportError, MissingExtraError, OptionError
from fmrt.export.exact_rules import take_constants_exactly
from fmrt.export.loading.pretrained import first_line
from fmrt.export.optimum_trace import convert_by_optimum
from fmrt.export.part import Part
from fmrt.export.patches import take_patches
from fmrt.export.quiet import quiet

# Packages that convert; the second, where transformers is held at 4.
TRANSFORMERS, OPTIMUM = "transformers", "optimum-onnx"
# What ``--exporter`` calls them, with the extra that brings each.
NAMES = {"transformers": TRANSFORMERS, "optimum": OPTIMUM}
EXTRAS = {TRANSFORMERS: "export", OPTIMUM: "optimum"}
NEEDS = {TRANSFORMERS: "transformers 5", OPTIMUM: "optimum-onnx with transformers 4"}
# Below 18 torch's converter has no operators; ONNX Runtime of our range runs up to 24.
OPSETS = range(18, 25)
# Words in torch's messages, and what they mean to a user.
REASONS = (
    (
        "specialized it to be a constant",
        "its code unrolls over the length of its input, and a graph would serve one length alone",
    ),
    ("data-dependent", "its code branches on values that only running it gives"),
    ("complex-valued input", "it computes with complex numbers"),
    ("No ONNX function found", "it uses an operator that the converter does not know"),
)


def trace(part: Part, model_type: str, opset: int | None, by: str | None = None) -> ir.Model:
    """Convert to a portable graph whose varying axes are free.

    Args:
        part: The tower or head.
        model_type: The model type for messages.
        opset: The ONNX opset version, or None for the converter's own default.
        by: The package that converts, as `exporter` gives it; default the one that is installed.

    Raises:
        ExportError: The converter cannot convert this architecture.
    """
    by = by or exporter()
    convert = EXPORTERS[by]
    try:
        with quiet(), torch.no_grad():
            program = convert(part, opset)
    except Exception as e:  # whatever torch.export or the converter raise
        text = f"{e} {e.__cause__}"
        reason = next((why for words, why in REASONS if words in text), first_line(e))
        through = "" if by == TRANSFORMERS else f" through {by}"
        raise ExportError(
            f"torch cannot convert a {model_type} model to ONNX{through}: {reason}"
        ) from e
    # The converter notes at each node which lines of which files it comes from.
    ClearMetadataAndDocStringPass()(program)
    for name in part.optional:
        _make_optional(program, name)
    return program


def exporter(asked: str | None = None) -> str:
    """The package that converts: transformers itself, or optimum-onnx with transformers 4.

    Args:
        asked: One of `NAMES`; default the one that is installed.

    Raises:
        MissingExtraError: No such package is installed.
        OptionError: The package that is asked for is not installed.
    """
    installed = [name for name, found in _INSTALLED.items() if found()]
    if asked is None:
        if not installed:
            raise MissingExtraError("Exporting with this version of transformers", "optimum")
        return installed[0]
    wanted = NAMES[asked]
    if wanted not in installed:
        raise OptionError(
            f"exporter {asked!r} needs {NEEDS[wanted]}, and transformers {version('transformers')} "
            f'is installed: pip install "fmrt[{EXTRAS[wanted]}]" in an environment of its own'
        )
    return wanted


def _has_optimum() -> bool:
    return find_spec("optimum") is not None and find_spec("optimum.exporters.onnx") is not None


_INSTALLED: dict[str, Callable[[], bool]] = {
    TRANSFORMERS: lambda: find_spec("transformers.exporters") is not None,
    OPTIMUM: _has_optimum,
}


def _by_transformers(part: Part, opset: int | None) -> ir.Model:
    # transformers 4 has no such module.
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    shapes = {name: dict.fromkeys(part.axes.get(name, ()), Dim.DYNAMIC) for name in part.inputs}
    take_constants_exactly()
    take_patches()
    config = OnnxConfig(dynamic_shapes=shapes, opset_version=opset)
    program: ir.Model = OnnxExporter().export(part.module, dict(part.inputs), config).program
    return program


EXPORTERS: dict[str, Callable[[Part, int | None], ir.Model]] = {
    TRANSFORMERS: _by_transformers,
    OPTIMUM: convert_by_optimum,
}


def _make_optional(model: ir.Model, name: str) -> None:
    """Give an input the default 0, so that consumers that do not know it can leave it out."""
    value = next(i for i in model.graph.inputs if i.name == name)
    value.const_value = ir.tensor([0], dtype=ir.DataType.INT64, name=name)
    model.graph.initializers[name] = value
