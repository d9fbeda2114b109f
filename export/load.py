"""A model's name -> the loader of its modality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from export.audio import load_audio
from export.backbone import backbone_class
from export.part import Loaded
from export.quiet import quiet
from export.source import MODULES_FILE, Overrides, check_device, fetch, first_line
from export.text import load_text
from export.towers import is_two_towers, load_towers
from export.vision import load_vision
from fmrt.errors import ExportError

LOADERS: dict[str, Callable[..., Loaded]] = {
    "pixel_values": load_vision,
    "input_values": load_audio,
    "input_features": load_audio,
}


def load_model(name: str, revision: str | None, device: str, overrides: Overrides) -> Loaded:
    """Load a model directory or hub id, whatever its modality.

    Raises:
        ExportError: no such model, or one that cannot be exported, with the reason.
        OptionError: an option that makes no sense, or not for this model.
    """
    check_device(device)
    path, commit = fetch(name, revision)
    if (path / MODULES_FILE).is_file() or not (path / "config.json").is_file():
        return load_text(name, path, commit, device, overrides)
    config = _config(path)
    kind = backbone_class(config)
    if is_two_towers(kind):
        return load_towers(name, path, commit, device, overrides)
    load = LOADERS.get(getattr(kind, "main_input_name", ""), load_text)
    return load(name, path, commit, device, overrides)


def _config(path: Path) -> PretrainedConfig:
    try:
        with quiet():
            return AutoConfig.from_pretrained(str(path), local_files_only=True)
    except Exception as e:  # whatever a malformed configuration provokes
        raise ExportError(f"{path / 'config.json'} cannot be read: {first_line(e)}") from e
