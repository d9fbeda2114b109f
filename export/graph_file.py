"""Writes a graph into a bundle; imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

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


def _recorded(variant: Variant, path: Path, external: Mapping[str, FileRecord]) -> Variant:
    record = record_of(path)
    return dataclasses.replace(
        variant, sha256=record.sha256, size=record.size, external=dict(external)
    )
