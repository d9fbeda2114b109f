"""Writes a graph into a bundle; imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import onnx_ir as ir

from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import FileRecord, Variant

# A protobuf message ends at 2 GiB; the graph itself needs some of that.
EXTERNAL_DATA_BYTES = 1_900_000_000


def unwritten(
    name: str, stem: str, suffix: str, provider: str, modality: str, precision: str = "fp32"
) -> Variant:
    """A variant whose graph is not written yet, and so without its record.

    Args:
        name: The name of the variant.
        stem: The stem of the tower's or head's file names.
        suffix: The suffix of the file's name, after the stem.
        provider: The provider that it runs on, or ``any``.
        modality: The modality of the tower.
        precision: The precision of weights and arithmetic.
    """
    return Variant(
        name=name,
        file=f"onnx/{stem}{suffix}.onnx",
        provider=provider,
        precision=precision,
        sha256="",
        size=0,
        modality=modality,
    )


def write_graph(
    model: ir.Model, directory: Path, variant: Variant, *, mapped: bool = False
) -> Variant:
    """Write a graph to ``variant.file``, and fill in the record of what was written.

    Weights past protobuf's limit go to ``<file>_data`` next to it, and any if they are to be
    mapped: ONNX Runtime maps such a file into memory, where it copies weights inside the graph
    twice.
    """
    path = directory / variant.file
    path.parent.mkdir(exist_ok=True)
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if weights < EXTERNAL_DATA_BYTES and not mapped:
        ir.save(model, path)
        return _recorded(variant, path, {})
    ir.save(model, path, external_data=f"{path.name}_data")
    data = f"{variant.file}_data"
    return _recorded(variant, path, {data: record_of(directory / data)})


def add_form(model: ir.Model, directory: Path, variant: Variant, form: str) -> Variant:
    """Write another graph of a variant, which reads the weights of its own where they are equal.

    Args:
        model: The graph.
        directory: The directory of the bundle.
        variant: The variant, written with its weights in a file of their own.
        form: The name of the form.

    Returns:
        The variant with that form.
    """
    kept = ir.load(directory / variant.file).graph.initializers
    for name, value in model.graph.initializers.items():
        twin = kept[name].const_value if name in kept else None
        if isinstance(twin, ir.ExternalTensor) and _equal(twin, value.const_value):
            value.const_value = twin
    own = PurePosixPath(variant.file)
    file = str(own.with_name(f"{own.stem}_{form.lower()}.onnx"))
    ir.save(model, directory / file)
    external = {**variant.external, file: record_of(directory / file)}
    return dataclasses.replace(variant, external=external, forms={**variant.forms, form: file})


def _equal(a: ir.TensorProtocol, b: ir.TensorProtocol | None) -> bool:
    alike = b is not None and (a.dtype, list(a.shape)) == (b.dtype, list(b.shape))
    return alike and b is not None and np.array_equal(a.numpy(), b.numpy())


def _recorded(variant: Variant, path: Path, external: Mapping[str, FileRecord]) -> Variant:
    record = record_of(path)
    return dataclasses.replace(
        variant, sha256=record.sha256, size=record.size, external=dict(external), forms={}
    )
