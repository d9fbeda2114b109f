"""What every modality gives to the export: a model's towers, each ready to trace."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from fmrt.bundle.bundle import HeadReference, Reference
from fmrt.bundle.manifest import TaskHead, Tower, Variant
from fmrt.export.choices import Choice
from fmrt.export.loading.adapter import AdapterFiles
from fmrt.export.loading.fetching import Origin


@dataclass(frozen=True, kw_only=True)
class Part:
    """What becomes one graph.

    Attributes:
        stem: The stem of the graph's file names.
        module: Gives the graph's outputs by name; in evaluation mode.
        inputs: An example batch by input name; no axis that varies has size 1.
        axes: The axes of each input that vary; those that are not named have none.
        optional: Inputs of shape ``[1]`` that other consumers may leave out; 0 by default.
    """

    stem: str
    module: torch.nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Sequence[int]]
    optional: tuple[str, ...] = ()

    @property
    @abstractmethod
    def modality(self) -> str:
        """The tower's modality."""


@dataclass(frozen=True, kw_only=True)
class TowerPart(Part):
    """One tower.

    Attributes:
        tower: The tower, as the manifest states it.
        reference: Raw items with PyTorch's vectors.
    """

    tower: Tower
    reference: Reference

    @property
    def modality(self) -> str:
        """The modality of its items."""
        return self.tower.modality


@dataclass(frozen=True, kw_only=True)
class HeadPart(Part):
    """One head.

    Attributes:
        head: The head, as the manifest states it, without its variants.
        reference: Inputs of the task with what PyTorch gives for them.
        finish: Changes the traced graph, in place.
    """

    head: TaskHead
    reference: HeadReference
    finish: Callable[[ir.Model], None]

    @property
    def modality(self) -> str:
        """The modality of the tower that it reads."""
        return self.head.modality


class TowerModel(torch.nn.Module):
    """One tower of a model of two as a model of its own.

    Args:
        model: A transformers model.
        method: Its method that gives the tower's output.
        config: The config of the tower.
    """

    def __init__(self, model: PreTrainedModel, method: str, config: PretrainedConfig) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.config = config
        self.device = model.device

    def forward(self, **inputs: Tensor) -> ModelOutput:
        """Run the method."""
        return getattr(self.model, self.method)(**inputs)


@dataclass(frozen=True)
class OtherTower:
    """The tower next to that of texts.

    Attributes:
        part: Embeds the reference items, and gives the tower.
        write_configuration: Writes what prepares its items.
        files: Those that the runtime reads.
    """

    part: Callable[[], TowerPart]
    write_configuration: Callable[[Path], None]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A loaded model.

    Attributes:
        origin: Where it is from.
        backbone: The transformers model; adapters are merged into it after `parts` and before a
            trace.
        model_type: Architecture, as in ``config.json``.
        choices: What was chosen and where that was read, for the user.
        parts: Embeds the reference items, and gives the towers.
        write_configuration: Writes tokenizer and configuration files next to the graphs.
        files: Those that the runtime reads.
        matryoshka_dims: Shorter vectors that the model was trained for.
        adapters: The adapters in the backbone, active and unmerged.
        heads: Runs the reference inputs of further graphs, and gives these.
        remote_code: Whether Python files of the directory were allowed to run.
    """

    origin: Origin
    backbone: torch.nn.Module
    model_type: str
    choices: tuple[Choice, ...]
    parts: Callable[[], Sequence[TowerPart]]
    write_configuration: Callable[[Path, Sequence[Variant]], None]
    files: tuple[str, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    adapters: tuple[AdapterFiles, ...] = ()
    heads: Callable[[], Sequence[HeadPart]] = tuple
    remote_code: bool = False
