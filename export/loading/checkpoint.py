"""A text model's checkpoint, compared with what its configuration says and with what was loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from fmrt.errors import ExportError
from fmrt.export.loading.directory import CONFIG_FILE, WEIGHT_ENDS, read_object
from fmrt.export.quiet import quiet

# Heads that were trained for something else than vectors, by the end of their class's name. A
# model below a language model's head is what embedding models are made from.
TASKS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
)
# The same, by the start of their weights' names.
TASK_WEIGHTS = ("classifier.", "score.", "qa_outputs.", "classification_head.")
# Each is a module to make: a model of millions would be made for hours.
COUNTS = ("layer", "expert", "depth")
MOST = 2000
# A weight has at least half a byte, and some of a model's are computed.
MOST_WEIGHTS_A_BYTE = 16
SMALL = 100_000_000


@dataclass(frozen=True)
class Difference:
    """Names of weights that a model has and its checkpoint lacks, and the other way round."""

    missing: Sequence[str]
    unexpected: Sequence[str]


def check_size(path: Path) -> None:
    """Raise when a configuration describes a model that its weights cannot be, or names code.

    Raises:
        ExportError: It does, or has thousands of layers, or many more parameters than the files
            have bytes.
    """
    if not (path / CONFIG_FILE).exists():
        return
    for key, value in _values(read_object(path / CONFIG_FILE)):
        if isinstance(value, str) and key.endswith("implementation") and "/" in value:
            raise ExportError(
                f"{path / CONFIG_FILE} states {key} {value!r}: code from the hub does not run"
            )
        if isinstance(value, int) and value > MOST and any(word in key for word in COUNTS):
            raise ExportError(f"{path / CONFIG_FILE} states {key} {value}: no model has so many")
    size = sum(f.stat().st_size for f in path.iterdir() if f.suffix in WEIGHT_ENDS)
    if not size:
        return
    parameters = 0
    with suppress(Exception), quiet(), torch.device("meta"):  # said again when it is loaded
        config = AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        model = AutoModel.from_config(config, trust_remote_code=False)
        parameters = sum(p.numel() for p in model.parameters())
    if parameters > SMALL + MOST_WEIGHTS_A_BYTE * size:
        raise ExportError(
            f"{path / CONFIG_FILE} describes a model of {parameters:,} parameters, and its weights "
            f"have {size:,} bytes"
        )


def _values(stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in stated.items():
        if isinstance(value, dict):
            yield from _values(value)
        else:
            yield key, value


def difference(backbone: PreTrainedModel) -> Difference:
    """Read a loaded model's checkpoint again, and compare."""
    with quiet():
        _, info = type(backbone).from_pretrained(
            backbone.config.name_or_path,
            config=backbone.config,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    # An encoder's pooler serves classification heads; no pooling mode reads it.
    missing = [key for key in info["missing_keys"] if "pooler" not in key.split(".")]
    return Difference(missing, sorted(info["unexpected_keys"]))


def check_missing(missing: Iterable[str], backbone: torch.nn.Module, name: str) -> None:
    """Raise when a checkpoint lacks weights that the vectors depend on.

    Raises:
        ExportError: The checkpoint lacks such weights.
    """
    names = sorted(missing)
    if names:
        raise ExportError(
            f"{name} lacks {len(names)} weights of a {type(backbone).__name__}, the first "
            f"{names[0]}: they would be random"
        )


def check_unexpected(unexpected: Iterable[str], backbone: torch.nn.Module, name: str) -> None:
    """Raise when a checkpoint has more of the model's own layers than were loaded.

    Raises:
        ExportError: The checkpoint has more layers.
    """
    kinds = {_kind(key) for key, _ in backbone.named_parameters()}
    prefix = f"{getattr(backbone, 'base_model_prefix', '')}."
    children = {name for name, _ in backbone.named_children()}
    more = [key for key in unexpected if _is_layers(key.removeprefix(prefix), kinds, children)]
    if more:
        raise ExportError(
            f"{name} has weights that its {CONFIG_FILE} leaves out, the first {more[0]}: it states "
            "fewer layers than the checkpoint has"
        )


def _is_layers(key: str, kinds: Collection[str], children: Collection[str]) -> bool:
    """Whether a weight is of one more layer of the model, or of layers where it has none."""
    kind = _kind(key)
    return kind in kinds or (".#." in kind and kind.partition(".")[0] in children)


def _kind(key: str) -> str:
    return re.sub(r"\.\d+\.", ".#.", key)


def check_head(config: PretrainedConfig, unexpected: Iterable[str], name: str) -> None:
    """Raise when a checkpoint's head was trained for a task that is not embedding.

    Raises:
        ExportError: The head was trained for another task.
    """
    kind = (getattr(config, "architectures", None) or [""])[0]
    weights = [key for key in unexpected if key.startswith(TASK_WEIGHTS)]
    if kind.endswith(TASKS) or weights:
        head = f"a {kind}" if kind.endswith(TASKS) else f"a model with a head ({weights[0]})"
        raise ExportError(
            f"{name} is {head}, such as a reranker or a classifier: it gives scores, and its head "
            "would be left out; for vectors of the model beneath it, say --pooling, e.g. "
            "--pooling mean"
        )
