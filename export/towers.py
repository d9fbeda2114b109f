"""Two-tower models such as CLIP and CLAP: texts, and images or sounds, in one space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fmrt.bundle.manifest import TextInput, Tower, Variant
from fmrt.errors import ExportError, OptionError
from fmrt.export.choices import Choice, Overrides, normalize_choice
from fmrt.export.loading.backbone import given_or_loaded
from fmrt.export.loading.checkpoint import check_missing
from fmrt.export.loading.directory import MODULES_FILE, stated_modules
from fmrt.export.loading.fetching import Origin
from fmrt.export.loading.tokenizer import (
    check_packages,
    check_rows,
    check_tokenizer,
    load_tokenizer,
)
from fmrt.export.part import Loaded, OtherTower, TowerPart, features
from fmrt.export.text.reference import PARAGRAPH, SENTENCES, embed_references, token_counter
from fmrt.export.untouched import check_original, load_original
from fmrt.export.writing.configuration import save_tokenizer, write_config
from fmrt.preprocess import TOKENIZER_FILE

OUTPUTS = ("last_hidden_state", "text_embeds")
EXAMPLE = ("a photo of a cat", "two dogs that run")
# Trained on texts padded to one length, the padding seen as text: no attention mask.
FULL_LENGTH = ("siglip", "siglip2")


class TowerText(torch.nn.Module):
    """Tokens to ``last_hidden_state`` and ``text_embeds``."""

    def __init__(self, model: PreTrainedModel, unit: bool) -> None:
        super().__init__()
        self.model = model
        self.unit = unit

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Embed a batch; both inputs are int64 ``[batch, sequence]``."""
        output = features(self.model, "text")(input_ids=input_ids, attention_mask=attention_mask)
        vectors = output.pooler_output
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {OUTPUTS[0]: output.last_hidden_state, OUTPUTS[1]: vectors}


@dataclass(frozen=True)
class TowersSource:
    """A loaded two-tower model with what prepares its items."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    spec: TextInput
    unit: bool
    masked: bool
    other: OtherTower


def load_towers(
    origin: Origin, device: str, overrides: Overrides, given: torch.nn.Module | None = None
) -> Loaded:
    """Load a transformers model with a text tower and an image or audio tower.

    Args:
        origin: The origin of the model, with its directory.
        device: The torch device.
        overrides: What the user asked for.
        given: What stands in for weights that are not in the directory.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    if overrides.pooling is not None:
        raise OptionError("--pooling: the towers end in the model's own projections")
    name, path = origin.name, origin.path
    trust = overrides.trust_remote_code
    model, missing = given_or_loaded(given, path, device, trust=trust)
    check_missing(missing, model, name)
    model_type = model.config.model_type
    # The models' own forward compares vectors of unit length.
    unit = overrides.normalize is not False
    tokenizer = _tokenizer(path, trust)
    check_rows(tokenizer, int(model.config.text_config.vocab_size), name)
    spec = _text_input(model, tokenizer, overrides.max_length)
    masked = model_type not in FULL_LENGTH
    original = load_original(path, device, trust) if given is None else None
    other = _other(model, path, unit, original)
    source = TowersSource(model, tokenizer, spec, unit, masked, other)
    if original is not None:
        _check(source, path, original, trust)
    # The class of the configuration, not what stands in for it.
    stated = source if given is None else dataclasses.replace(source, model=model.shape)
    return Loaded(
        origin=origin,
        backbone=model,
        model_type=model_type,
        choices=(
            Choice("pooling", "the projections", f"{model_type}'s own"),
            normalize_choice(overrides.normalize, True, "as the model compares them"),
            Choice("max length", f"{spec.max_length} tokens", "config.json and the tokenizer"),
        ),
        parts=partial(_parts, source),
        write_configuration=partial(_write_configuration, stated),
        files=(TOKENIZER_FILE, *source.other.files),
    )


def load_sentence_towers(
    origin: Origin, device: str, overrides: Overrides, given: torch.nn.Module | None = None
) -> Loaded:
    """Load a sentence-transformers directory whose first module is a model of two towers.

    Args:
        origin: The origin of the model, with its directory.
        device: The torch device.
        overrides: What the user asked for.
        given: What stands in for weights that are not in the directory.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    first, *after = stated_modules(origin.path, origin.name)
    for module in after:
        if module.kind != "Normalize":
            raise ExportError(
                f"{origin.name} has a {module.kind} module after its towers, which cannot be "
                "exported"
            )
    said = normalize_choice(overrides.normalize, bool(after), MODULES_FILE)
    stated = dataclasses.replace(overrides, normalize=said.value == "yes")
    inner = dataclasses.replace(origin, path=origin.path / first.path)
    loaded = load_towers(inner, device, stated, given)
    choices = tuple(said if choice.name == said.name else choice for choice in loaded.choices)
    return dataclasses.replace(loaded, origin=origin, choices=choices)


def _tokenizer(path: Path, trust: bool) -> PreTrainedTokenizerFast:
    check_packages(path)
    tokenizer = load_tokenizer(path, trust=trust)
    check_tokenizer(tokenizer, str(path))
    return tokenizer


def _text_input(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: int | None
) -> TextInput:
    config = model.config.text_config
    limit = int(config.max_position_embeddings)
    # RoBERTa's positions start after its padding token's.
    if hasattr(model, "audio_model"):
        limit -= int(config.pad_token_id) + 1
    stated = min(limit, int(tokenizer.model_max_length))
    if asked is not None and asked > limit:
        raise OptionError(f"max length {asked}; this model takes 1 to {limit} tokens")
    full = model.config.model_type in FULL_LENGTH
    if full and asked not in (None, stated):
        raise OptionError(f"max length {asked}; this model takes texts of {stated} tokens")
    pad = tokenizer.pad_token_id
    return TextInput(
        asked or stated,
        0 if pad is None else pad,
        pad_to_max_length=full,
        vocab_size=int(config.vocab_size),
    )


def _check(source: TowersSource, path: Path, original: PreTrainedModel, trust: bool) -> None:
    """Compare the tower of texts with what users get.

    Raises:
        ExportError: The vectors differ.
    """
    tokenizer = load_tokenizer(path, trust=trust)
    module = TowerText(source.model, source.unit).eval()
    full = {"padding": "max_length"} if source.spec.pad_to_max_length else {}

    def ours(text: str) -> Tensor:
        vectors: Tensor = module(**_tokens(source, [text]))[OUTPUTS[1]][0]
        return vectors

    def theirs(text: str) -> Tensor:
        length = source.spec.max_length
        batch = tokenizer(text, truncation=True, max_length=length, return_tensors="pt", **full)
        names = ("input_ids", "attention_mask") if source.masked else ("input_ids",)
        inputs = {name: batch[name].to(original.device) for name in names}
        vectors: Tensor = features(original, "text")(**inputs).pooler_output[0]
        return vectors

    check_original("text", (*SENTENCES, PARAGRAPH * 4), ours, theirs, unit=source.unit)


def _other(
    model: PreTrainedModel, path: Path, unit: bool, original: PreTrainedModel | None
) -> OtherTower:
    """The tower of images or sounds; its packages are an extra, imported for its modality alone."""
    modality = "vision" if hasattr(model, "get_image_features") else "audio"
    make: Callable[..., OtherTower] = import_module(f"fmrt.export.{modality}.tower").other_tower
    return make(model, path, unit, original)


def _parts(source: TowersSource) -> Sequence[TowerPart]:
    return [_text_part(source), source.other.part()]


def _text_part(source: TowersSource) -> TowerPart:
    module = TowerText(source.model, source.unit).eval()

    def embed(text: str, _: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = module(**_tokens(source, [text]))[OUTPUTS[1]][0].cpu().numpy()
        return vector

    count = token_counter(source.tokenizer)
    reference = embed_references(count, source.spec.max_length, (), embed)
    inputs = _tokens(source, list(EXAMPLE))
    tower = Tower(
        modality="text",
        inputs=tuple(inputs),
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling="pooler",
        normalize=source.unit,
        input=source.spec,
    )
    varying = (0,) if source.spec.pad_to_max_length else (0, 1)
    return TowerPart(
        tower=tower,
        stem="text_model",
        module=module,
        inputs=inputs,
        axes=dict.fromkeys(inputs, varying),
        reference=reference,
    )


def _tokens(source: TowersSource, texts: list[str]) -> dict[str, Tensor]:
    """Model inputs as Hugging Face's tokenizer makes them."""
    batch = source.tokenizer(
        texts,
        padding="max_length" if source.spec.pad_to_max_length else True,
        truncation=True,
        max_length=source.spec.max_length,
        return_tensors="pt",
    )
    names = ("input_ids", "attention_mask") if source.masked else ("input_ids",)
    return {name: batch[name].to(source.model.device) for name in names}


def _write_configuration(
    source: TowersSource, directory: Path, variants: Sequence[Variant]
) -> None:
    longest = source.spec.max_length
    write_config(source.model, directory, variants, longest)
    full_length = source.spec.pad_to_max_length
    save_tokenizer(source.tokenizer, longest, directory, full_length=full_length)
    source.other.write_configuration(directory)
