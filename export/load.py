"""A model's name -> the loader of its modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fmrt.errors import ExportError, OptionError
from fmrt.export.choices import PATCH, Choice, Overrides
from fmrt.export.loading.adapter import (
    AdapterFiles,
    attach,
    base_of,
    check_against_peft,
    check_loaded,
    fetch_adapter,
)
from fmrt.export.loading.backbone import backbone_class, is_two_towers, read_config
from fmrt.export.loading.directory import (
    ADAPTER_CONFIG,
    CONFIG_FILE,
    MODULES_FILE,
    Module,
    author_code,
    check_directory,
    stated_modules,
)
from fmrt.export.loading.fetching import Origin, fetch
from fmrt.export.loading.pretrained import first_line
from fmrt.export.part import Loaded
from fmrt.export.segmentation.sam import FAMILIES
from fmrt.system.extras import needing

# Module and function of a loader; imported when a model of its kind comes, as its packages are an
# extra of its modality.
Loader = tuple[str, str]
TEXT: Loader = ("text.tower", "load_text")
STATIC: Loader = ("text.static", "load_static")
VISION: Loader = ("vision.tower", "load_vision")
AUDIO: Loader = ("audio.tower", "load_audio")
LOADERS: dict[str, Loader] = {
    "pixel_values": VISION,
    "input_values": AUDIO,
    "input_features": AUDIO,
}


def load_model(
    name: str,
    revision: str | None,
    device: str,
    overrides: Overrides,
    adapters: Sequence[tuple[str, float]] = (),
) -> Loaded:
    """Load a model directory or hub id, whatever its modality, with adapters in its layers.

    Args:
        name: The name of a model, or of an adapter that names its base.
        revision: The commit of a hub model.
        device: The torch device.
        overrides: What the user asked for.
        adapters: The names of PEFT adapters, with their weights.

    Raises:
        ExportError: There is no such model, or it cannot be exported; the message has the reason.
        OptionError: An option that makes no sense, or not for this model.
    """
    _check_device(device)
    files = [fetch_adapter(*adapter) for adapter in adapters]
    origin = _fetched(name, revision)
    is_adapter = (origin.path / ADAPTER_CONFIG).is_file()
    if is_adapter and (origin.path / MODULES_FILE).is_file():
        return _loaded_with_adapter(origin, device, overrides, files)
    if is_adapter:
        files.insert(0, AdapterFiles(origin.name, origin.path, origin.revision))
        origin = _fetched(base_of(files[0]), None)
    overrides = dataclasses.replace(overrides, tokenizers=tuple(f.path for f in files))
    loaded = _load(_loader(origin, overrides.trust_remote_code), origin, device, overrides)
    choices = (*loaded.choices, *_head(loaded), *_code(origin.path, overrides))
    trusted = overrides.trust_remote_code
    loaded = dataclasses.replace(loaded, choices=choices, remote_code=trusted)
    if files:
        attach(loaded.backbone, files)
        if getattr(loaded.backbone, "main_input_name", "") == "input_ids":
            check_against_peft(loaded.backbone, origin.path, files)
    return _with_adapters(loaded, files)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise OptionError(f"device {device!r} is not usable: {first_line(e)}") from e


def _fetched(name: str, revision: str | None) -> Origin:
    origin = fetch(name, revision)
    check_directory(origin.path, name)
    return origin


def _loaded_with_adapter(
    origin: Origin, device: str, overrides: Overrides, more: Sequence[AdapterFiles]
) -> Loaded:
    """A sentence-transformers directory that is an adapter: that library finds and loads both."""
    if more:
        raise OptionError(
            f"{origin.name} is an adapter already; give its base with --adapter instead"
        )
    loaded = _load(TEXT, origin, device, overrides)
    files = AdapterFiles(origin.name, origin.path, origin.revision)
    check_loaded(loaded.backbone, files)
    return _with_adapters(loaded, [files])


def _head(loaded: Loaded) -> list[Choice]:
    """Which head of the checkpoint is not part of the graph."""
    config: Any = loaded.backbone.config
    stated = (getattr(config, "architectures", None) or [""])[0]
    kind = type(loaded.backbone).__name__
    whole = stated == kind or (stated.endswith("Model") and not stated.endswith("HeadModel"))
    if not stated or whole or not (loaded.origin.path / CONFIG_FILE).is_file():
        return []
    return [Choice("head", f"left out: {stated}'s; {kind} gives the vectors", CONFIG_FILE)]


def _code(path: Path, overrides: Overrides) -> list[Choice]:
    """What is done with Python files that the directory names."""
    named = ", ".join(dict.fromkeys(author_code(path)))
    if overrides.trust_remote_code:
        return [Choice("remote code", f"may run: {named or 'the model names none'}", "asked for")]
    return [Choice("remote code", f"not run: {named}", "not needed")] if named else []


def _with_adapters(loaded: Loaded, files: Sequence[AdapterFiles]) -> Loaded:
    said = [Choice("adapter", f"{f.name}, weight {f.weight:g}", ADAPTER_CONFIG) for f in files]
    return dataclasses.replace(loaded, choices=(*loaded.choices, *said), adapters=tuple(files))


def _load(loader: Loader, origin: Origin, device: str, overrides: Overrides) -> Loaded:
    if overrides.output == PATCH and loader != VISION:
        raise OptionError("output 'patch' is for models of images alone")
    with needing("Exporting this model", "export"):
        module, function = loader
        load: Callable[..., Loaded] = getattr(import_module(f"fmrt.export.{module}"), function)
        return load(origin, device, overrides)


def _loader(origin: Origin, trust: bool) -> Loader:
    name, path = origin.name, origin.path
    modules = stated_modules(path, name)
    if modules:
        return _loader_of_modules(path, modules, trust)
    if not (path / CONFIG_FILE).is_file():
        raise ExportError(f"{name} holds neither {CONFIG_FILE} nor {MODULES_FILE}: not a model")
    config = read_config(path, trust)
    if config.model_type in FAMILIES:
        return "segmentation.segmenter", "load_segmenter"
    kind = backbone_class(config)
    if is_two_towers(kind):
        return "towers", "load_towers"
    return LOADERS.get(getattr(kind, "main_input_name", ""), TEXT)


def _loader_of_modules(path: Path, modules: Sequence[Module], trust: bool) -> Loader:
    """The loader of a sentence-transformers directory, by its first module."""
    first = path / modules[0].path
    if modules[0].kind == "StaticEmbedding":
        return STATIC
    # Below trust, a module of the author's own may read its folder in a way of its own.
    known = modules[0].package.startswith("sentence_transformers.")
    known = known and (first / CONFIG_FILE).is_file() and not (first / ADAPTER_CONFIG).is_file()
    if known and is_two_towers(backbone_class(read_config(first, trust))):
        return "towers", "load_sentence_towers"
    return TEXT
