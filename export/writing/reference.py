"""Writes the reference file: items with what PyTorch gives for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fmrt.bundle.bundle import HeadReference, Reference
from fmrt.bundle.manifest import Tower
from fmrt.bundle.reference import TOWERS, declared


def write_references(
    references: Mapping[str, Reference],
    heads: Mapping[str, HeadReference],
    towers: Sequence[Tower],
    path: Path,
) -> None:
    """Write ``reference.safetensors``: the reference of each modality and of each head's task.

    The towers' options go there too, so that the runtime finds one that has changed since.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    metadata = {TOWERS: declared(towers)}
    for modality, reference in references.items():
        # safetensors takes an array's memory as it lies.
        tensors[f"{modality}.embeddings"] = np.ascontiguousarray(reference.embeddings)
        tensors[f"{modality}.lengths"] = reference.lengths
        entries: list[dict[str, str]] = []
        for i, (item, prompt) in enumerate(zip(reference.items, reference.prompts, strict=True)):
            if isinstance(item, str):
                entries.append({"text": item, "prompt": prompt})
            else:
                name = f"{modality}.item.{i}"
                tensors[name] = np.frombuffer(item, np.uint8)
                entries.append({"bytes": name})
        metadata[modality] = json.dumps(entries)
    for task, head in heads.items():
        metadata[task] = json.dumps(head.items)
        tensors.update({f"{task}.{name}": values for name, values in head.outputs.items()})
    path.write_bytes(save(tensors, metadata=metadata))
