"""A transformers directory -> its model without a task's head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from fmrt.errors import ExportError, quoted
from fmrt.export.loading.checkpoint import check_size, check_unexpected
from fmrt.export.loading.directory import CONFIG_FILE
from fmrt.export.loading.pretrained import load_pretrained


def backbone_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of the model without a task's head.

    It is the one that `AutoModel` knows, but for towers of a larger model: with a projection they
    give the vectors that the towers share, and some are no model of their own to `AutoModel`.
    """
    name = (getattr(config, "architectures", None) or [""])[0]
    stated: type[PreTrainedModel] | None = getattr(transformers, name, None)
    if stated is not None and name.endswith("WithProjection"):
        return stated
    known: type[PreTrainedModel] = MODEL_MAPPING.get(type(config), stated or AutoModel)
    return known


def read_config(path: Path, trust: bool) -> PretrainedConfig:
    """The configuration in a directory; ``trust`` lets Python files of the directory run.

    Raises:
        ExportError: It cannot be read.
    """
    file = str(path / CONFIG_FILE)
    config: PretrainedConfig = load_pretrained(AutoConfig.from_pretrained, path, file, trust=trust)
    stated = getattr(config, "architectures", None) or []
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
        raise ExportError(f"{file}: architectures is {quoted(stated)}, and must be a list of names")
    return config


def load_backbone(
    path: Path,
    device: str,
    kind: type[PreTrainedModel] | None = None,
    *,
    trust: bool = False,
) -> tuple[PreTrainedModel, list[str]]:
    """The model in float32 and evaluation mode, and the names of weights the checkpoint lacks.

    Args:
        path: The directory of the model.
        device: The torch device.
        kind: The model's class; default that of `backbone_class`.
        trust: Whether Python files of the directory may run.

    Raises:
        ExportError: It cannot be loaded.
    """
    check_size(path)
    kind = kind or backbone_class(read_config(path, trust))
    loaded: tuple[PreTrainedModel, dict[str, list[str]]] = load_pretrained(
        kind.from_pretrained,
        path,
        str(path),
        trust=trust,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, info = loaded
    check_unexpected(info["unexpected_keys"], model, str(path))
    return model.eval().to(device), sorted(info["missing_keys"])


def given_or_loaded(
    given: torch.nn.Module | None, path: Path, device: str, *, trust: bool
) -> tuple[Any, list[str]]:
    """What stands in for a directory's weights, which lacks none; else see `load_backbone`."""
    return (given, []) if given is not None else load_backbone(path, device, trust=trust)


def is_two_towers(kind: type[PreTrainedModel]) -> bool:
    """Whether a model class gives vectors of texts and of something else."""
    return hasattr(kind, "get_text_features") and (
        hasattr(kind, "get_image_features") or hasattr(kind, "get_audio_features")
    )
