"""A wrong assembly is refused, though the graph and its reference vectors agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fmrt
from fmrt.errors import ExportError
from fmrt.export import towers
from fmrt.export.audio.feature_extractor import FeatureExtractor
from fmrt.export.audio.tower import AudioEmbedding
from fmrt.export.part import TowerModel
from fmrt.export.vision.image_processor import ImageProcessor
from fmrt.export.vision.tower import ImageEmbedding
from tests.export.audio import AUDIO, save_audio
from tests.export.test_towers import save as save_towers
from tests.export.vision import VISION, save_vision

VIT = next(tiny for tiny in VISION if tiny.model_type == "vit")
DINO = next(tiny for tiny in VISION if tiny.model_type == "dinov2")
WAV2VEC = next(tiny for tiny in AUDIO if tiny.name == "wav2vec2")
WHISPER = next(tiny for tiny in AUDIO if tiny.name == "whisper")


def changed(kind: type, name: str, **values: object) -> Callable[[pytest.MonkeyPatch], None]:
    """What a class loads of a directory is changed after it was loaded."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        plain = kind.__init__

        def wrong(self: Any, *arguments: Any) -> None:
            plain(self, *arguments)
            for key, value in values.items():
                setattr(getattr(self, name), key, value)

        monkeypatch.setattr(kind, "__init__", wrong)

    return patch


def second_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageEmbedding, "pooled", lambda _, output: output.last_hidden_state[:, 1])


def last_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = AudioEmbedding.forward

    def wrong(self: AudioEmbedding, **inputs: Any) -> dict[str, Any]:
        found = plain(self, **inputs)
        return {**found, "audio_embeds": found["last_hidden_state"][:, -1]}

    monkeypatch.setattr(AudioEmbedding, "forward", wrong)


def all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = AudioEmbedding.forward

    def wrong(self: AudioEmbedding, **inputs: Any) -> dict[str, Any]:
        return plain(
            self, **{**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}
        )

    monkeypatch.setattr(AudioEmbedding, "forward", wrong)


def projection_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: TowerModel, **inputs: Any) -> Any:
        output = self.model.vision_model(**inputs)
        output.pooler_output = self.model.text_projection(output.pooler_output)
        return output

    monkeypatch.setattr(TowerModel, "forward", wrong)


def a_model_without_case(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = towers._tokens
    monkeypatch.setattr(towers, "_tokens", lambda s, texts: plain(s, [t.lower() for t in texts]))


WRONG = {
    "mean of the pixels": (VIT, changed(ImageProcessor, "processor", image_mean=[0.1, 0.5, 0.5])),
    "deviation of the pixels": (DINO, changed(ImageProcessor, "processor", image_std=[0.2] * 3)),
    "token of images": (VIT, second_token),
    "frames of sounds": (WAV2VEC, last_frame),
    "frames of silence": (WHISPER, all_frames),
    "loudness of sounds": (WAV2VEC, changed(FeatureExtractor, "extractor", do_normalize=False)),
    "projection": ("clip", projection_of_texts),
    "words": ("siglip", a_model_without_case),
}


# Each is like another of the table.
SLOW = ("frames of silence",)


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in WRONG]
)
def test_a_wrong_assembly_is_refused(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, patch = WRONG[fault]
    if isinstance(model, str):
        directory = save_towers(model, tmp_path / "model")
    elif model in VISION:
        directory = save_vision(model, tmp_path / "model")
    else:
        directory = save_audio(model, tmp_path / "model")
    patch(monkeypatch)
    with pytest.raises(ExportError, match=r"other (image|audio|text) vectors than transformers"):
        fmrt.export_model(directory, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
