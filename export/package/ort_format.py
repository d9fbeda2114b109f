"""ONNX Runtime's own format of a package's graphs, and what a reduced build of it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle, record_of
from fmrt.bundle.manifest import Variant
from fmrt.errors import ExportError, said
from fmrt.session import SLOW_CPU_FUSIONS

FOLDER = "ort"
OPERATORS = f"{FOLDER}/required_operators.config"
# Optimizations that no processor alone has: the file may go to another machine.
FREE, SAME = 4, 1e-5
LEVEL = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def write_ort(bundle: Bundle, say: Callable[[str], None]) -> Bundle:
    """Add the graphs that the CPU runs in ONNX Runtime's format, and the operators they need.

    Raises:
        ExportError: ONNX Runtime cannot write or run one.
    """
    folder = bundle.path / FOLDER
    folder.mkdir()
    names = []
    for variant in bundle.manifest.graphs:
        if variant.provider in ("any", "cpu"):
            path = folder / f"{Path(variant.file).stem}.ort"
            _convert(bundle, variant, path)
            names.append(f"{FOLDER}/{path.name}")
            say(f"wrote {FOLDER}/{path.name}")
    from onnxruntime.tools.ort_format_model import create_config_from_models

    try:
        paths = [bundle.path / name for name in names]
        create_config_from_models(paths, bundle.path / OPERATORS, enable_type_reduction=True)
    except Exception as e:
        raise ExportError(f"the required operators cannot be listed: {said(e)}") from e
    files = {name: record_of(bundle.path / name) for name in (*names, OPERATORS)}
    manifest = bundle.manifest
    dataclasses.replace(manifest, files={**manifest.files, **files}).write(bundle.path)
    return Bundle.open(bundle.path)


def _convert(bundle: Bundle, variant: Variant, path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVEL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        graph = str(bundle.graph(variant))
        session = ort.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(SLOW_CPU_FUSIONS),
        )
        again = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ExportError(
            f"ONNX Runtime cannot write {variant.file} in its format: {said(e)}"
        ) from e
    feeds = {i.name: _some(i) for i in session.get_inputs()}
    pairs = zip(session.run(None, feeds), again.run(None, feeds), strict=True)
    if not all(np.allclose(a, b, rtol=0, atol=SAME) for a, b in pairs):
        raise ExportError(f"{path.name} gives other values than {variant.file}")


def _some(value: Any) -> NDArray[Any]:  # noqa: ANN401  # of ONNX Runtime
    """An input of ones, its free axes of one size."""
    shape = [size if isinstance(size, int) else FREE for size in value.shape]
    return np.ones(shape, np.float32 if "float" in value.type else np.int64)
