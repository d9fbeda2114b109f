"""PEFT adapters: attached for the reference vectors, then merged into the weights for the graph.

The vectors that a bundle is checked against come from the unmerged adapters, so that verification
covers the merge.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from fmrt.bundle.manifest import Adapter
from fmrt.errors import ExportError, OptionError
from fmrt.export.loading.directory import ADAPTER_CONFIG, check_directory, read_object
from fmrt.export.loading.fetching import Origin, fetch
from fmrt.export.loading.pretrained import first_line
from fmrt.export.quiet import quiet

# Tokens of the comparison with PEFT, and how far the states may differ by rounding.
PROBE = 8
DIFFERENT = 1e-4
# Some adapters start from a randomized decomposition of the layer's weight.
SEED = 0
# Before every name in an adapter's file.
PREFIX = "base_model.model."
# Settings of a LoRA that add weights which are no product of two matrices.
BEYOND_LORA = (
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "modules_to_save",
)


@dataclass(frozen=True)
class AdapterFiles(Origin):
    """An adapter on disk.

    Attributes:
        weight: What its change of the weights is multiplied by.
    """

    weight: float = 1.0

    def record(self) -> Adapter:
        """What the manifest says of it."""
        return Adapter(self.public_name, self.revision, self.weight, self.weights_sha256())


def fetch_adapter(name: str, weight: float = 1.0) -> AdapterFiles:
    """An adapter's directory, from disk or the hub.

    Raises:
        ExportError: There is no such adapter.
    """
    origin = fetch(name, None)
    if not (origin.path / ADAPTER_CONFIG).is_file():
        raise ExportError(f"{name} holds no {ADAPTER_CONFIG}: not an adapter")
    check_directory(origin.path, name)
    return AdapterFiles(name, origin.path, origin.revision, weight)


def base_of(adapter: AdapterFiles) -> str:
    """Directory or hub id of the model that an adapter was trained on.

    Raises:
        ExportError: The adapter does not say.
    """
    base = _config(adapter).base_model_name_or_path
    if not base:
        raise ExportError(
            f"{adapter.name} does not name its base; export the base with --adapter {adapter.name}"
        )
    beside = adapter.path / base
    return str(beside) if beside.is_dir() else str(base)


def attach(backbone: torch.nn.Module, adapters: Sequence[AdapterFiles]) -> None:
    """Put adapters into a model's layers, active and unmerged.

    Their changes add up, each multiplied by its weight.

    Raises:
        ExportError: An adapter does not fit the model, or is more than a LoRA.
        OptionError: A combination that is no sum.
    """
    configs = [_config(adapter) for adapter in adapters]
    plain = len(adapters) == 1 and adapters[0].weight == 1.0
    if not plain and any(config.use_dora for config in configs):
        raise OptionError("a DoRA does not add up: give it alone, without a weight")
    names = [f"adapter_{i}" for i in range(len(adapters))]
    before = _Weights(backbone if any(map(_changes_base, configs)) else torch.nn.Module())
    for adapter, config, name in zip(adapters, configs, names, strict=True):
        before.restore()
        _inject(backbone, adapter, config, name)
        before.keep(adapter.weight)
    before.add_kept()
    for _, layer in _layers(backbone):
        layer.set_adapter([name for name in names if name in layer.scaling])
    backbone.requires_grad_(requires_grad=False)
    backbone.eval()


def _changes_base(config: LoraConfig) -> bool:
    """Whether putting an adapter in may change the layer's own weight: not for zeros or noise."""
    return isinstance(config.init_lora_weights, str)


class _Weights:
    """A model's own weights, which some adapters change when they are put in.

    PiSSA, OLoRA and their like take what they start from out of the layer's weight. That is part of
    their change, and they are to find the layer as it was, not as another adapter left it.
    """

    def __init__(self, backbone: torch.nn.Module) -> None:
        self._backbone = backbone
        self._layers = {
            name: (module.weight, module.weight.detach().clone())
            for name, module in backbone.named_modules()
            if isinstance(getattr(module, "weight", None), torch.Tensor)
        }
        self._changes: dict[str, torch.Tensor] = {}

    def restore(self) -> None:
        """Put the weights back as they were."""
        for weight, first in self._layers.values():
            weight.data.copy_(first)

    def keep(self, factor: float) -> None:
        """Remember, times ``factor``, by how much the weights are not as they were."""
        for name, (weight, first) in self._layers.items():
            if not torch.equal(weight, first):
                change = factor * (weight.data - first)
                self._changes[name] = self._changes.get(name, 0) + change

    def add_kept(self) -> None:
        """The weights as they were, with all that was remembered."""
        self.restore()
        for name, change in self._changes.items():
            self._layers[name][0].data.add_(change)


def check_loaded(backbone: torch.nn.Module, adapter: AdapterFiles) -> None:
    """Check an adapter that a library loaded along with its base: every weight is in place.

    Raises:
        ExportError: Some weights are not in place.
    """
    _config(adapter)
    loaded = [v for key, v in backbone.state_dict().items() if ".lora_" in key]
    stated = [v for key, v in _weights(adapter).items() if ".lora_" in key]
    if sorted(map(_fingerprint, loaded)) != sorted(map(_fingerprint, stated)):
        raise ExportError(f"{adapter.name} does not fit its base: not all its weights have a place")


def _fingerprint(tensor: torch.Tensor) -> tuple[float, ...]:
    flat = tensor.detach().float().cpu().flatten()
    return (float(len(flat)), float(flat.sum()), float(flat.abs().sum()))


def merge(backbone: torch.nn.Module) -> None:
    """Add the active adapters to the weights, and leave plain layers."""
    for name, layer in list(_layers(backbone)):
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())


def check_against_peft(
    backbone: PreTrainedModel, base: Path, adapters: Sequence[AdapterFiles]
) -> None:
    """Compare a text model and its adapters with what PEFT makes of the same directories.

    Raises:
        ExportError: The states of a few tokens differ.
    """
    ids = torch.arange(PROBE, device=backbone.device)[None] % backbone.config.vocab_size
    with quiet(), torch.no_grad():
        want = _by_peft(backbone, base, adapters)(input_ids=ids).last_hidden_state
        got = backbone(input_ids=ids).last_hidden_state
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= DIFFERENT:
        raise ExportError(
            f"{adapters[0].name}: not all its weights have found their place, as PEFT gives tokens "
            f"other states, by {error:.1e} of the largest"
        )


def _by_peft(
    backbone: PreTrainedModel, base: Path, adapters: Sequence[AdapterFiles]
) -> PreTrainedModel:
    """The base with adapters, as PEFT loads them onto the directory as it is.

    A sum is the base with each adapter's change of its weights, merged by PEFT, times its weight.
    """
    whole = _with_head(backbone, adapters)

    def loaded(adapter: AdapterFiles) -> PeftModel:
        model = whole.from_pretrained(
            str(base), dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        torch.manual_seed(SEED)
        return PeftModel.from_pretrained(model.to(backbone.device), str(adapter.path)).eval()

    def inner(model: PreTrainedModel) -> PreTrainedModel:
        return model if isinstance(model, type(backbone)) else model.base_model

    if len(adapters) == 1 and adapters[0].weight == 1.0:
        return inner(loaded(adapters[0]).get_base_model())
    model = whole.from_pretrained(str(base), dtype=torch.float32, local_files_only=True)
    model.to(backbone.device)
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    for adapter in adapters:
        merged = dict(loaded(adapter).merge_and_unload().named_parameters())
        for name, p in model.named_parameters():
            p.data.add_(adapter.weight * (merged[name].data - first[name]))
    return inner(model.eval())


def _with_head(
    backbone: PreTrainedModel, adapters: Sequence[AdapterFiles]
) -> type[PreTrainedModel]:
    """The class that the adapters were trained on: their names say whether it had a head."""
    modules = {name for name, _ in backbone.named_modules()}
    key = next(iter(_weights(adapters[0]))).removeprefix(PREFIX).split(".lora_")[0]
    if key in modules or f"{key}.base_layer" in modules:
        return type(backbone)
    stated = (backbone.config.architectures or [""])[0]
    named: type[PreTrainedModel] | None = getattr(transformers, stated, None)
    if named is None or stated == type(backbone).__name__:
        named = AutoModelForCausalLM
    return named


def _layers(backbone: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in backbone.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def _config(adapter: AdapterFiles) -> LoraConfig:
    try:
        kind = str(read_object(adapter.path / ADAPTER_CONFIG).get("peft_type"))
        with quiet():
            config = PeftConfig.from_pretrained(str(adapter.path))
    except ExportError:
        raise
    except Exception as e:  # whatever a malformed configuration provokes
        raise ExportError(
            f"{adapter.name}: {ADAPTER_CONFIG} cannot be read: {first_line(e)}"
        ) from e
    if not isinstance(config, LoraConfig):
        raise ExportError(f"{adapter.name} is a {kind} adapter; only LORA can be merged")
    return config


def _inject(
    backbone: torch.nn.Module, adapter: AdapterFiles, stated: LoraConfig, name: str
) -> None:
    beyond = [key for key in BEYOND_LORA if getattr(stated, key, None)]
    if stated.bias != "none":
        beyond.append("bias")
    if beyond:
        raise ExportError(
            f"{adapter.name} is more than a LoRA, which cannot be merged: {beyond[0]}"
        )
    state, dropped = _fitted(backbone, adapter)
    widest = max(max(value.shape, default=0) for value in state.values())
    rank = max([stated.r, *(stated.rank_pattern or {}).values()])
    if rank > widest:
        raise ExportError(f"{adapter.name} states rank {rank}, and its weights have {widest} rows")
    config = copy.copy(stated)
    config.target_modules = sorted({key.split(".lora_")[0] for key in state})
    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.rank_pattern = _renamed(stated.rank_pattern, dropped)
    config.alpha_pattern = _renamed(stated.alpha_pattern, dropped)
    config.inference_mode = True
    try:
        with quiet():
            torch.manual_seed(SEED)
            inject_adapter_in_model(config, backbone, name)
            result = set_peft_model_state_dict(backbone, state, name)
    except Exception as e:  # peft raises many kinds
        raise ExportError(f"{adapter.name} does not fit the model: {first_line(e)}") from e
    missing = [key for key in result.missing_keys if f".{name}" in key]
    if missing or result.unexpected_keys:
        wrong = (missing or result.unexpected_keys)[0]
        raise ExportError(f"{adapter.name} does not fit the model: {wrong} has no counterpart")
    for _, layer in _layers(backbone):
        if name in layer.scaling:
            layer.scaling[name] *= adapter.weight


def _fitted(
    backbone: torch.nn.Module, adapter: AdapterFiles
) -> tuple[Mapping[str, torch.Tensor], str]:
    """The adapter's tensors by the backbone's names, and what was before those.

    Adapters of language models are trained with the head around the backbone, whose layers then
    have a longer name.
    """
    plain = {key.removeprefix(PREFIX): value for key, value in _weights(adapter).items()}
    modules = {name for name, _ in backbone.named_modules()}
    layer = next(iter(plain)).split(".lora_")[0]
    parts = layer.split(".")
    tails = (".".join(parts[i:]) for i in range(len(parts)))
    tail = next((t for t in tails if t in modules or f"{t}.base_layer" in modules), None)
    dropped = layer.removesuffix(tail) if tail else ""
    for key in plain:
        own = key.removeprefix(dropped).split(".lora_")[0]
        if not key.startswith(dropped) or ".lora_" not in key or own not in modules:
            raise ExportError(
                f"{adapter.name} does not fit the model: it changes {key.split('.lora_')[0]}, "
                f"which a {type(backbone).__name__} does not have"
            )
    return {key.removeprefix(dropped): value for key, value in plain.items()}, dropped


def _weights(adapter: AdapterFiles) -> dict[str, torch.Tensor]:
    try:
        with quiet():
            state: dict[str, torch.Tensor] = load_peft_weights(str(adapter.path), device="cpu")
    except Exception as e:  # a missing or malformed file
        raise ExportError(f"{adapter.name}: its weights cannot be read: {first_line(e)}") from e
    if not state:
        raise ExportError(f"{adapter.name} holds no weights")
    return state


def _renamed(pattern: Mapping[str, Any], dropped: str) -> dict[str, Any]:
    return {key.removeprefix(dropped): value for key, value in pattern.items()}
