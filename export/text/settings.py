"""What a text model's directory says about embeddings, and what the user asks for instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from fmrt.errors import OptionError
from fmrt.export.choices import Choice, normalize_choice
from fmrt.export.loading.directory import MODULES_FILE, SENTENCE_TRANSFORMERS, read_object
from fmrt.export.text.causality import is_causal
from fmrt.export.text.pooling import POOLINGS, make_pooling

# Tokenizers without a limit of their own state a number beyond this.
UNLIMITED = 1 << 30
# Pooling where the model states none, by whether its attention is causal.
STANDARD = {
    True: ("lasttoken", "standard for causal attention: the last token alone sees all others"),
    False: ("mean", "standard for encoders: each token sees all others"),
}


def choose_pooling(model: SentenceTransformer, path: Path, asked: str | None) -> Choice:
    """How token vectors become one; ``asked`` changes it, and where nothing is stated, a standard.

    Raises:
        OptionError: No such mode, or one whose vectors the layers after it do not take.
    """
    index = next(i for i, m in enumerate(model) if isinstance(m, Pooling))
    pooling = model[index]
    origin = _module_origin(path, pooling)
    if asked is None and origin is None:
        mode, reason = STANDARD[is_causal(model[0])]
        model[index] = Pooling(pooling.embedding_dimension, mode)
        return Choice("pooling", mode, f"{reason}; the model does not say, --pooling overrides")
    if asked is not None:
        modes = tuple(asked.split("+"))
        unknown = [m for m in modes if m not in POOLINGS]
        if unknown:
            raise OptionError(f"pooling {unknown[0]!r}; choose from: {', '.join(POOLINGS)}")
        model[index] = make_pooling(pooling.embedding_dimension, modes, pooling.include_prompt)
        _check_width(model, index)
        origin = "asked for"
    mode = model[index].pooling_mode
    return Choice("pooling", mode if isinstance(mode, str) else "+".join(mode), str(origin))


def _check_width(model: SentenceTransformer, index: int) -> None:
    width = model[index].pooling_output_dimension
    for module in list(model)[index + 1 :]:
        wanted = getattr(module, "in_features", width)
        if wanted != width:
            raise OptionError(
                f"pooling gives {width} dimensions, and the Dense layer after it takes {wanted}"
            )


def choose_normalize(model: SentenceTransformer, path: Path, asked: bool | None) -> Choice:
    """Whether a model ends in L2 normalization; ``asked`` changes it."""
    has = isinstance(model[-1], Normalize)
    if asked and not has:
        model.append(Normalize())
    elif has and asked is False:
        del model[len(model) - 1]
    return normalize_choice(asked, has, MODULES_FILE if (path / MODULES_FILE).is_file() else None)


def choose_max_length(model: SentenceTransformer, path: Path, asked: int | None) -> Choice:
    """Most tokens of a text, never more than there are positions; ``asked`` changes it.

    Raises:
        OptionError: More than the model takes, or none asked for where none is stated.
    """
    limit = _position_limit(model[0].auto_model)
    stated = model.max_seq_length
    if asked is not None:
        if asked < 1 or (limit is not None and asked > limit):
            raise OptionError(f"max length {asked}; this model takes 1 to {limit} tokens")
        model.max_seq_length = asked
        return Choice("max length", f"{asked}", "asked for")
    known = stated is not None and stated <= UNLIMITED
    if known and (limit is None or stated <= limit):
        return Choice("max length", f"{stated}", _length_origin(path, stated))
    if limit is None:
        raise OptionError("the model states no maximum length; give one with --max-length")
    model.max_seq_length = limit
    return Choice("max length", f"{limit}", "all the model's position embeddings, config.json")


def _length_origin(path: Path, length: int) -> str:
    stated = (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    )
    for file, key in stated:
        for found in sorted(path.rglob(file)):
            if read_object(found).get(key) == length:
                return str(found.relative_to(path))
    return "config.json"


def _position_limit(backbone: torch.nn.Module) -> int | None:
    """Most positions the model has; RoBERTa-like tables lose the rows up to their padding row."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            used = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - used
    config: Any = backbone.config
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def prompts_choice(model: SentenceTransformer, path: Path) -> Choice:
    """The prompts that a model states, which the bundle offers."""
    named = {name: text for name, text in model.prompts.items() if text}
    default = model.default_prompt_name
    shown = ", ".join(f"{name}={text!r}" for name, text in named.items()) or "none"
    if default:
        shown += f"; default {default}"
    pooling = next(m for m in model if isinstance(m, Pooling))
    if not pooling.include_prompt:
        shown += "; left out of pooling"
    file = SENTENCE_TRANSFORMERS
    return Choice("prompts", shown, file if (path / file).is_file() else "the model states none")


def _module_origin(path: Path, module: object) -> str | None:
    """Path of the configuration of the module of this type, relative to the model's directory."""
    if not (path / MODULES_FILE).is_file():
        return None
    kind = type(module).__name__
    for entry in json.loads((path / MODULES_FILE).read_text(encoding="utf-8")):
        if entry["type"].rsplit(".", 1)[-1] == kind:
            return f"{entry['path']}/config.json"
    return MODULES_FILE
