"""One model type -> what its export came to."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import transformers
from PIL import Image
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

import fmrt
from conformance.scope import classify, model_class
from conformance.tiny import IMAGE, build, tiny_config
from fmrt.errors import FmrtError
from fmrt.export.quiet import quiet
from tests.export.models import TEXTS, make_tokenizer

LENGTH = 64
VERIFIED, REFUSED, OUT, UNTESTED = "verified", "refused", "out of scope", "untested"
SAME = 2e-5  # of the scale: an item alone, and among others
APART = 1e-4  # of the scale: two items' vectors


# Extractors of checkpoints, where the model type's in transformers is another or none.
EXTRACTORS = {
    "nemotron3_5_transcribe_asr_audio": "NemotronAsrStreamingFeatureExtractor",
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
}
OWN_LENGTH = (
    "LasrFeatureExtractor",
    "NemotronAsrStreamingFeatureExtractor",
    "ParakeetFeatureExtractor",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a model type.

    Attributes:
        model_type: The type in its ``config.json``.
        modality: ``text``, ``image`` or ``audio``; empty when out of scope.
        status: one of `VERIFIED`, `REFUSED`, `OUT` and `UNTESTED` (no tiny model could be made).
        reason: The reason in one line; empty when verified.
        pooling: that the export chose.
        error: largest error of a component, relative to the largest component.
        cosine: The cosine of the worst item with PyTorch's.
        seconds: that it took.
    """

    model_type: str
    modality: str = ""
    status: str = OUT
    reason: str = ""
    pooling: str = ""
    error: float = 0.0
    cosine: float = 0.0
    seconds: float = 0.0


def outcome(model_type: str, place: Path) -> Outcome:
    """Make a tiny model in ``place``, export it, embed items that the export has not seen."""
    start = time.monotonic()
    modality, reason = classify(model_type)
    if not modality:
        return Outcome(model_type, reason=reason)
    found = Outcome(model_type, modality, UNTESTED)
    try:
        with quiet():
            _save(model_type, modality, place / "model")
    except Exception as e:  # whatever a configuration that was made by rules provokes
        return dataclasses.replace(found, reason=one_line(e))
    try:
        found = _exported(found, place)
    except FmrtError as e:
        reason = one_line(e).replace(str(place / "model"), "the model")
        found = dataclasses.replace(found, status=REFUSED, reason=reason)
    return dataclasses.replace(found, seconds=round(time.monotonic() - start, 1))


def one_line(e: Exception) -> str:
    """An error's text without line breaks, or its type."""
    return " ".join(str(e).split())[:300] or type(e).__name__


def _exported(found: Outcome, place: Path) -> Outcome:
    bundle = fmrt.export_model(place / "model", place / "bundle")
    variant = bundle.manifest.variants[0]
    tower = bundle.manifest.tower()
    assert variant.parity is not None
    reference = bundle.reference(tower.modality).embeddings
    scale = float(np.abs(reference).max())
    items = ITEMS[found.modality]()
    with fmrt.Embedder(bundle) as embedder:
        together = embedder.embed(items, on_too_long="truncate", batch_tokens=1 << 20)
        alone = np.stack([embedder.embed([i], on_too_long="truncate")[0] for i in items])
    reason = ""
    if np.abs(together - alone).max() > SAME * scale:
        reason = "an item's vector depends on the others of its batch"
    elif np.ptp(alone, axis=0).max() <= APART * scale:
        reason = "the tiny model gives every item the same vector"
    return dataclasses.replace(
        found,
        status=REFUSED if reason else VERIFIED,
        reason=reason,
        pooling=tower.pooling,
        error=float(f"{variant.parity.max_abs_error / scale:.1e}"),
        cosine=round(variant.parity.min_cosine, 6),
    )


def _save(model_type: str, modality: str, directory: Path) -> None:
    """Write the model and what prepares its items."""
    tokenizer = make_tokenizer("bpe")
    names = ("pad", "bos", "eos", "unk", "mask")
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    tokens |= {"cls_token_id": tokens["bos_token_id"], "sep_token_id": tokens["eos_token_id"]}
    tokens |= {"decoder_start_token_id": tokens["bos_token_id"]}
    config = tiny_config(model_type, tokens, len(tokenizer))
    model = build(config)
    model.save_pretrained(directory)
    if modality == "text":
        if type(model).__name__.endswith("ForCausalLM"):
            tokenizer = make_tokenizer("bpe-bos")
        tokenizer.model_max_length = LENGTH
        tokenizer.save_pretrained(directory)
    elif modality == "image":
        _image_processor(config).save_pretrained(directory)
    else:
        _feature_extractor(model_type, config).save_pretrained(directory)


def _image_processor(config: Any) -> Any:
    size = getattr(config, "image_size", None) or IMAGE
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return transformers.ViTImageProcessorPil(size={"height": height, "width": width})


def _feature_extractor(model_type: str, config: Any) -> Any:
    waves = model_class(model_type).main_input_name == "input_values"
    usual = "Wav2Vec2FeatureExtractor" if waves else "WhisperFeatureExtractor"
    known = {**FEATURE_EXTRACTOR_MAPPING_NAMES, **EXTRACTORS}
    kind = known.get(model_type, usual)
    encoder = getattr(config, "encoder_config", config)
    bins = getattr(encoder, "num_mel_bins", None)
    options: dict[str, Any] = {}
    if bins and kind in OWN_LENGTH:
        options = {"feature_size": bins}
    if kind == "WhisperFeatureExtractor":
        options = {"chunk_length": 2, "feature_size": bins or 80}
    if kind == "ASTFeatureExtractor":
        options = {"max_length": config.max_length, "num_mel_bins": bins}
    return getattr(transformers, kind)(**options)


def _images() -> list[bytes]:
    rng = np.random.default_rng(5)
    out = []
    for height, width in ((40, 60), (33, 33), (120, 35), (64, 200)):
        file = io.BytesIO()
        noise = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        Image.fromarray(noise).resize((width, height)).save(file, "PNG")
        out.append(file.getvalue())
    return out


def _sounds() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(5)
    seconds = (0.7, 1.3, 0.7, 0.9)
    return [rng.normal(0, 0.1, int(16_000 * s)).astype(np.float32) for s in seconds]


ITEMS: dict[str, Callable[[], Sequence[Any]]] = {
    "text": lambda: TEXTS,
    "image": _images,
    "audio": lambda: [_wav(sound) for sound in _sounds()],
}


def _wav(samples: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    return file.getvalue()
