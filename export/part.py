"""What every modality gives to the export: a model's towers, each ready to trace."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from fmrt.bundle.bundle import HeadReference, Reference
from fmrt.bundle.manifest import TaskHead, Tower, Variant
from fmrt.export.choices import Choice
from fmrt.export.loading.adapter import AdapterFiles
from fmrt.export.loading.fetching import Origin

# Whether ``get_text_features`` and its like give the vector without the states: in transformers 4.
VECTOR_ALONE = find_spec("transformers.exporters") is None
# Names of the part of a model that is a tower.
TOWERS = {
    "text": ("text_model",),
    "image": ("vision_model", "image_model"),
    "audio": ("audio_model",),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What becomes one graph.

    Attributes:
        stem: The stem of the graph's file names.
        module: The module in evaluation mode, which gives the graph's outputs by name.
        inputs: An example batch by input name; no axis that varies has size 1.
        axes: The axes of each input that vary; those that are not named have none.
        optional: The inputs of shape ``[1]`` that other consumers may leave out; they are 0 by
            default.
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
        reference: The raw items with PyTorch's vectors.
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
        reference: The inputs of the task with what PyTorch gives for them.
        finish: A function that changes the traced graph, in place.
    """

    head: TaskHead
    reference: HeadReference
    finish: Callable[[ir.Model], None]

    @property
    def modality(self) -> str:
        """The modality of the tower that it reads."""
        return self.head.modality


def features(model: PreTrainedModel, modality: str) -> Callable[..., ModelOutput]:
    """What gives ``last_hidden_state`` of a tower, and its projected vector as ``pooler_output``.

    Args:
        model: A transformers model of two towers.
        modality: The modality: ``text``, ``image`` or ``audio``.
    """
    method: Callable[..., Any] = getattr(model, f"get_{modality}_features")
    # What stands in for a model gives both, as transformers 5 does.
    alone = VECTOR_ALONE and isinstance(model, PreTrainedModel)
    return partial(_with_states, method, model, modality) if alone else method


def _with_states(
    method: Callable[..., Tensor], model: PreTrainedModel, modality: str, **inputs: Tensor
) -> ModelOutput:
    """The vector that a method gives, with the states that the tower below it gave."""
    tower = next(part for name in TOWERS[modality] if (part := getattr(model, name, None)))
    given: list[ModelOutput] = []
    hook = tower.register_forward_hook(lambda _, __, output: given.append(output))
    try:
        vector = method(**inputs)
    finally:
        hook.remove()
    return BaseModelOutputWithPooling(given[-1].last_hidden_state, vector)


class TowerModel(torch.nn.Module):
    """One tower of a model of two as a model of its own.

    Args:
        model: A transformers model.
        modality: The modality of the tower.
        config: The config of the tower.
    """

    def __init__(self, model: PreTrainedModel, modality: str, config: PretrainedConfig) -> None:
        super().__init__()
        self.model = model
        self.modality = modality
        self.config = config
        self.device = model.device

    def forward(self, **inputs: Tensor) -> ModelOutput:
        """Run the tower, up to its projection."""
        return features(self.model, self.modality)(**inputs)


@dataclass(frozen=True)
class OtherTower:
    """The tower next to that of texts.

    Attributes:
        part: A function that embeds the reference items, and gives the tower.
        write_configuration: A function that writes what prepares its items.
        files: The files that the runtime reads.
    """

    part: Callable[[], TowerPart]
    write_configuration: Callable[[Path], None]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A loaded model.

    Attributes:
        origin: The origin of the model.
        backbone: The transformers model; adapters are merged into it after `parts` and before a
            trace.
        model_type: The architecture, as in ``config.json``.
        choices: What was chosen and where that was read, for the user.
        parts: A function that embeds the reference items, and gives the towers.
        write_configuration: A function that writes tokenizer and configuration files next to the
            graphs.
        files: The files that the runtime reads.
        matryoshka_dims: The shorter vectors that the model was trained for.
        adapters: The adapters in the backbone, active and unmerged.
        heads: A function that runs the reference inputs of further graphs, and gives these.
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
