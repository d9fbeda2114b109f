"""Every family of audio models, from sound files through the torch-free runtime."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import AutoFeatureExtractor, AutoModel, ClapAudioModel

import fmrt
from fmrt.errors import InputError, TruncationWarning
from fmrt.export.quiet import quiet
from tests.export.audio import AUDIO, TinyAudio, save_audio
from tests.export.reference import FILE_ERROR, assert_parity
from tests.export.strangers import check_for_strangers


def sounds() -> list[tuple[np.ndarray, int]]:
    """Waveforms that the exporter has not seen, with their rates: lengths, channels, silence."""
    rng = np.random.default_rng(3)
    out = []
    for seconds, rate, channels in (
        (0.7, 16_000, 1),
        (1.3, 16_000, 1),
        (0.7, 16_000, 1),
        (0.45, 48_000, 2),
        (0.8, 11_025, 1),
    ):
        time = np.arange(int(seconds * rate))[:, None] / rate
        tone = np.sin(2 * np.pi * (200 + 900 * time) * time * np.arange(1, channels + 1))
        out.append((0.3 * tone + rng.normal(0, 0.05, tone.shape), rate))
    return out


def files() -> list[bytes]:
    out = []
    for samples, rate in sounds():
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
        out.append(file.getvalue())
    return out


def pytorch(model: Path, tiny: TinyAudio) -> np.ndarray:
    """One sound at a time, by transformers alone."""
    extractor = AutoFeatureExtractor.from_pretrained(model)
    with quiet(), torch.no_grad():
        kind = ClapAudioModel if tiny.name == "clap" else AutoModel
        backbone = kind.from_pretrained(model).eval()
        rows = []
        for data in files():
            samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
            mono = samples.mean(1)
            if rate != extractor.sampling_rate:
                mono = soxr.resample(mono, rate, extractor.sampling_rate, quality="HQ")
            inputs = extractor(mono, sampling_rate=extractor.sampling_rate, return_tensors="pt")
            main = inputs[extractor.model_input_names[0]].float()
            if tiny.model_type == "whisper":
                hidden = backbone.encoder(main).last_hidden_state
                # Frames of 10 ms, halved by a convolution.
                seen = math.ceil(math.ceil(len(mono) / 160) / 2)
                rows.append(hidden[:, :seen].mean(1))
                continue
            if "attention_mask" in inputs and "input_features" in inputs:
                rows.append(mean_of_valid(backbone, inputs))
                continue
            output = backbone(main)
            pooled = tiny.pooling == "pooler"
            rows.append(output.pooler_output if pooled else output.last_hidden_state.mean(1))
    return torch.cat(rows).numpy()


def mean_of_valid(backbone: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean over the frames that a model says are no padding, given all that its extractor says."""
    encoder = backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone
    output = encoder(**inputs)
    hidden = output.last_hidden_state
    valid = output.get("attention_mask")
    if valid is None:
        mask = inputs["attention_mask"]
        valid = mask if mask.shape[1] == hidden.shape[1] else torch.ones(hidden.shape[:2])
    weights = valid[:, :, None].float()
    return (hidden * weights).sum(1) / weights.sum(1)


# Each is like another of the table.
SLOW = (
    "clap",
    "hubert_large",
    "lasr",
    "nemotron",
    "wav2vec2_bert",
    "wav2vec2_large",
    "wavlm",
    "wavlm_large",
)


@pytest.mark.parametrize(
    "tiny",
    [pytest.param(t, marks=pytest.mark.slow) if t.name in SLOW else t for t in AUDIO],
    ids=lambda tiny: tiny.name,
)
def test_family_matches_pytorch(tiny: TinyAudio, tmp_path: Path) -> None:
    model = save_audio(tiny, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    check_for_strangers(bundle, model)
    assert bundle.manifest.tower().pooling == tiny.pooling
    assert bundle.manifest.tower().input.masked == tiny.masked
    want = pytorch(model, tiny)
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed(files(), batch_tokens=1_000_000, on_too_long="truncate")
        alone = np.stack([embedder.embed([f], on_too_long="truncate")[0] for f in files()])
    assert_parity(got, want, FILE_ERROR)
    assert np.abs(got - alone).max() <= 1e-5 * np.abs(want).max()
    assert np.ptp(want, axis=0).max() > 1e-3


def test_long_short_and_broken_sounds(tmp_path: Path) -> None:
    model = save_audio(AUDIO[0], tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle", max_length=1)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 24_000).astype(np.float32)
    with fmrt.Embedder(bundle) as embedder:
        with pytest.warns(TruncationWarning, match=r"1 of 2 sounds had more than 1\.0 s .* 1\.5 s"):
            got = embedder.embed([noise, noise[:16_000]])
        assert np.array_equal(got[0], got[1])
        for bad, reason in (
            (noise[:100], "100 samples"),
            (b"", "empty"),
            (b"RIFF and no more", "truncated"),
            (b"no sound at all", "not a sound"),
            ("missing.wav", "no such file"),
            (np.zeros((2, 9000), np.float32), "9000 channels"),
            (np.full(9000, np.nan, np.float32), "not numbers"),
            (np.zeros(9000, np.int16), "float"),
            (3, "expected a path"),
        ):
            with pytest.raises(InputError, match=reason):
                embedder.embed([bad])
        with pytest.raises(InputError, match=r"1\.5 s, and the model takes 1\.0 s"):
            embedder.embed([noise], on_too_long="error")
