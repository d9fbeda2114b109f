"""What every modality gives to the export: a model's towers, each ready to trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from fmrt.bundle import HeadReference, Reference
from fmrt.export.adapter import AdapterFiles
from fmrt.export.source import Choice
from fmrt.manifest import Head, Tower, Variant


@dataclass(frozen=True)
class Part:
    """One tower.

    Attributes:
        tower: as the manifest states it.
        stem: of the graph's file names.
        module: gives the graph's outputs by name; in evaluation mode.
        inputs: an example batch by input name; no axis that varies has size 1.
        axes: the axes of each input that vary; those that are not named have none.
        optional: inputs of shape ``[1]`` that other consumers may leave out; 0 by default.
        reference: raw items with PyTorch's vectors.
    """

    tower: Tower
    stem: str
    module: torch.nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Sequence[int]]
    reference: Reference
    optional: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class HeadPart:
    """One head.

    Attributes:
        head: as the manifest states it, without its variants.
        stem, module, inputs, axes, optional: as of `Part`.
        reference: inputs of the task with what PyTorch gives for them.
        finish: changes the traced graph, in place.
    """

    head: Head
    stem: str
    module: torch.nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Sequence[int]]
    reference: HeadReference
    finish: Callable[[ir.Model], None]
    optional: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Loaded:
    """A loaded model.

    Attributes:
        name: as the user gave it.
        path: its local directory.
        revision: commit of a hub model.
        backbone: the transformers model; adapters are merged into it after `parts` and before a
            trace.
        model_type: architecture, as in ``config.json``.
        matryoshka_dims: shorter vectors that the model was trained for.
        choices: what was chosen and where that was read, for the user.
        parts: embeds the reference items, and gives the towers.
        write_configuration: writes tokenizer and configuration files next to the graphs.
        files: those that the runtime reads.
        adapters: in the backbone, active and unmerged.
        heads: runs the reference inputs of further graphs, and gives these.
        remote_code: whether Python files of the directory were allowed to run.
    """

    name: str
    path: Path
    revision: str | None
    backbone: torch.nn.Module
    model_type: str
    matryoshka_dims: tuple[int, ...]
    choices: tuple[Choice, ...]
    parts: Callable[[], Sequence[Part]]
    write_configuration: Callable[[Path, Sequence[Variant]], None]
    files: tuple[str, ...]
    adapters: tuple[AdapterFiles, ...] = ()
    heads: Callable[[], Sequence[HeadPart]] = tuple
    remote_code: bool = False
