"""Two-tower models such as CLIP and CLAP: texts, and images or sounds, in one space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer

from fmrt.bundle import Reference
from fmrt.errors import ExportError, OptionError
from fmrt.export.backbone import load_backbone
from fmrt.export.checkpoint import check_missing
from fmrt.export.directory import MODULES_FILE, stated_modules
from fmrt.export.layout import save_tokenizer, write_config
from fmrt.export.part import Loaded, Part
from fmrt.export.quiet import quiet
from fmrt.export.reference import reference_texts
from fmrt.export.source import Choice, Overrides, cannot_load
from fmrt.export.tokenizer import check_packages, check_rows, check_tokenizer
from fmrt.manifest import TextInput, Tower, Variant
from fmrt.preprocess import TOKENIZER_FILE
from fmrt.preprocess.spectrogram import FEATURES_FILE

OUTPUTS = ("last_hidden_state", "text_embeds")
EXAMPLE = ("a photo of a cat", "two dogs that run")
# Trained on texts padded to one length, the padding seen as text: no attention mask.
FULL_LENGTH = ("siglip", "siglip2")


class _Features(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """One tower of a model as a model of its own."""

    def __init__(self, model: Any, method: str, config: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.model = model
        self.method = method
        self.config = config
        self.device = model.device

    def forward(self, **inputs: Tensor) -> Any:  # noqa: ANN401  # a transformers output
        return getattr(self.model, self.method)(**inputs)


class TowerText(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """Tokens to ``last_hidden_state`` and ``text_embeds``."""

    def __init__(self, model: Any, unit: bool) -> None:  # noqa: ANN401
        super().__init__()
        self.model = model
        self.unit = unit

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Embed a batch; both inputs are int64 ``[batch, sequence]``."""
        output = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        vectors = output.pooler_output
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {OUTPUTS[0]: output.last_hidden_state, OUTPUTS[1]: vectors}


@dataclass(frozen=True)
class _Other:
    """The tower of images or sounds: its part, its configuration's writer, its files."""

    part: Callable[[], Part]
    write_configuration: Callable[[Path], None]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class TowersSource:
    """A loaded two-tower model with what prepares its items."""

    model: Any
    tokenizer: Any
    spec: TextInput
    unit: bool
    masked: bool
    other: _Other


def load_towers(
    name: str, path: Path, revision: str | None, device: str, overrides: Overrides
) -> Loaded:
    """Load a transformers model with a text tower and an image or audio tower.

    Raises:
        ExportError: it cannot be exported, with the reason.
        OptionError: an override that makes no sense for this model.
    """
    if overrides.pooling is not None:
        raise OptionError("--pooling: the towers end in the model's own projections")
    model, missing = load_backbone(path, device, trust=overrides.trust_remote_code)
    check_missing(missing, model, name)
    model_type = model.config.model_type
    # The models' own forward compares vectors of unit length.
    unit = overrides.normalize is not False
    origin = "as the model compares them" if overrides.normalize is None else "asked for"
    tokenizer = _tokenizer(path, overrides.trust_remote_code)
    check_rows(tokenizer, int(model.config.text_config.vocab_size), name)
    spec = _text_input(model, tokenizer, overrides.max_length)
    masked = model_type not in FULL_LENGTH
    other = _images if hasattr(model, "get_image_features") else _sounds
    source = TowersSource(model, tokenizer, spec, unit, masked, other(model, path, unit))
    return Loaded(
        name,
        path,
        revision,
        model,
        model_type,
        (),
        (
            Choice("pooling", "the projections", f"{model_type}'s own"),
            Choice("normalize", "yes" if unit else "no", origin),
            Choice("max length", f"{spec.max_length} tokens", "config.json and the tokenizer"),
        ),
        partial(_parts, source),
        partial(_write_configuration, source),
        (TOKENIZER_FILE, *source.other.files),
    )


def load_sentence_towers(
    name: str, path: Path, revision: str | None, device: str, overrides: Overrides
) -> Loaded:
    """Load a sentence-transformers directory whose first module is a model of two towers.

    Raises:
        ExportError: it cannot be exported, with the reason.
        OptionError: an override that makes no sense for this model.
    """
    first, *after = stated_modules(path, name)
    for module in after:
        if module.kind != "Normalize":
            raise ExportError(
                f"{name} has a {module.kind} module after its towers, which cannot be exported"
            )
    unit = bool(after) if overrides.normalize is None else overrides.normalize
    stated = dataclasses.replace(overrides, normalize=unit)
    loaded = load_towers(name, path / first.path, revision, device, stated)
    choices = loaded.choices
    if overrides.normalize is None:
        said = Choice("normalize", "yes" if unit else "no", MODULES_FILE)
        choices = tuple(said if choice.name == said.name else choice for choice in choices)
    return dataclasses.replace(loaded, path=path, choices=choices)


def _tokenizer(path: Path, trust: bool) -> Any:  # noqa: ANN401
    check_packages(path)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=trust
            )
    except Exception as e:  # whatever a malformed directory provokes
        raise cannot_load(f"the tokenizer of {path}", path, e) from e
    check_tokenizer(tokenizer, str(path))
    return tokenizer


def _text_input(model: Any, tokenizer: Any, asked: int | None) -> TextInput:  # noqa: ANN401
    config = model.config.text_config
    limit = int(config.max_position_embeddings)
    # RoBERTa's positions start behind its padding token's.
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


def _images(model: Any, path: Path, unit: bool) -> _Other:  # noqa: ANN401
    from fmrt.export.image_processor import ImageProcessor  # noqa: PLC0415  # an extra
    from fmrt.export.vision import ImageEmbedding, VisionSource, image_part  # noqa: PLC0415

    backbone = _Features(model, "get_image_features", model.config.vision_config)
    source = VisionSource(ImageEmbedding(backbone, "pooler", unit).eval(), ImageProcessor(path))
    return _Other(partial(image_part, source, "vision_model"), source.write_configuration)


def _sounds(model: Any, path: Path, unit: bool) -> _Other:  # noqa: ANN401
    from fmrt.export.audio import AudioEmbedding, AudioSource, audio_part  # noqa: PLC0415
    from fmrt.export.feature_extractor import FeatureExtractor  # noqa: PLC0415  # an extra

    extractor = FeatureExtractor(path)
    backbone = _Features(model, "get_audio_features", model.config.audio_config)
    sounds = AudioEmbedding(backbone, extractor.input_name, "pooler", unit).eval()
    source = AudioSource(sounds, extractor, extractor.spec(1, None))
    files = () if source.spec.spectrogram is None else (FEATURES_FILE,)
    return _Other(partial(audio_part, source, "audio_model"), source.write_configuration, files)


def _parts(source: TowersSource) -> Sequence[Part]:
    return [_text_part(source), source.other.part()]


def _text_part(source: TowersSource) -> Part:
    module = TowerText(source.model, source.unit).eval()
    count = _counter(source.tokenizer)
    texts = [text for text, _ in reference_texts(count, source.spec.max_length, ())]
    with torch.no_grad(), quiet():
        batches = [_tokens(source, [text]) for text in texts]
        vectors = [module(**batch)[OUTPUTS[1]][0].cpu().numpy() for batch in batches]
    lengths = [min(count(text), source.spec.max_length) for text in texts]
    reference = Reference(list(texts), [""] * len(texts), np.array(lengths), np.stack(vectors))
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
    return Part(tower, "text_model", module, inputs, dict.fromkeys(inputs, varying), reference)


def _counter(tokenizer: Any) -> Any:  # noqa: ANN401
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return lambda text: len(backend.encode(text).ids)


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
