"""A transformers directory -> its model without a task's head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PretrainedConfig

from fmrt.errors import ExportError
from fmrt.export.checkpoint import check_size, check_unexpected
from fmrt.export.directory import CONFIG_FILE
from fmrt.export.quiet import quiet
from fmrt.export.source import cannot_load


def backbone_class(config: PretrainedConfig) -> Any:  # noqa: ANN401  # a model class
    """The class of the model without a task's head.

    It is the one that `AutoModel` knows, but for towers of a larger model: with a projection they
    give the vectors that the towers share, and some are no model of their own to `AutoModel`.
    """
    stated = getattr(transformers, (getattr(config, "architectures", None) or [""])[0], None)
    if stated is not None and stated.__name__.endswith("WithProjection"):
        return stated
    try:
        return MODEL_MAPPING[type(config)]
    except KeyError:
        return stated or AutoModel


def read_config(path: Path, trust: bool) -> PretrainedConfig:
    """The configuration in a directory; ``trust`` lets Python files of the directory run.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=trust
            )
    except Exception as e:  # whatever a malformed configuration provokes
        raise cannot_load(str(path / CONFIG_FILE), path, e) from e


def load_backbone(
    path: Path,
    device: str,
    kind: Any = None,  # noqa: ANN401
    *,
    trust: bool = False,
) -> tuple[Any, list[str]]:
    """The model in float32 and evaluation mode, and the names of weights the checkpoint lacks.

    Args:
        path: its directory.
        device: torch device.
        kind: the model's class; default that of `backbone_class`.
        trust: whether Python files of the directory may run.

    Raises:
        ExportError: it cannot be loaded.
    """
    check_size(path)
    try:
        with quiet():
            if kind is None:
                kind = backbone_class(read_config(path, trust))
            model, info = kind.from_pretrained(
                str(path),
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=trust,
            )
    except ExportError:
        raise
    except Exception as e:  # whatever a malformed checkpoint provokes
        raise cannot_load(str(path), path, e) from e
    check_unexpected(info["unexpected_keys"], model, str(path))
    return model.eval().to(device), sorted(info["missing_keys"])


def is_two_towers(kind: Any) -> bool:  # noqa: ANN401  # a model class
    """Whether a model class gives vectors of texts and of something else."""
    return hasattr(kind, "get_text_features") and (
        hasattr(kind, "get_image_features") or hasattr(kind, "get_audio_features")
    )
