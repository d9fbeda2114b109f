"""Tiny random audio models with their real feature extractors, written as directories."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModel

from fmrt.export.quiet import quiet
from tests.export.models import BART
from tests.export.sizes import TRANSFORMER, WAVEFORM

LARGE = {**WAVEFORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
MASKED = {"return_attention_mask": True}
WAV2VEC2 = "Wav2Vec2FeatureExtractor"


@dataclass(frozen=True)
class TinyAudio:
    """One architecture.

    Attributes:
        name: The test's name.
        model_type: The type in its ``config.json``.
        extractor: class of its feature extractor.
        config: its configuration.
        options: The feature extractor's options.
        pooling: The pooling that the exporter must choose.
        masked: whether sounds of different lengths share a batch.
    """

    name: str
    model_type: str
    extractor: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    masked: bool = False


AUDIO = (
    TinyAudio("wav2vec2", "wav2vec2", WAV2VEC2, WAVEFORM),
    TinyAudio("wav2vec2_large", "wav2vec2", WAV2VEC2, LARGE, MASKED, masked=True),
    TinyAudio("hubert", "hubert", WAV2VEC2, WAVEFORM, {"do_normalize": False}),
    TinyAudio("hubert_large", "hubert", WAV2VEC2, LARGE, MASKED, masked=True),
    TinyAudio("wavlm", "wavlm", WAV2VEC2, {**WAVEFORM, "num_buckets": 20}),
    TinyAudio("wavlm_large", "wavlm", WAV2VEC2, {**LARGE, "num_buckets": 20}, MASKED, masked=True),
    TinyAudio(
        "whisper",
        "whisper",
        "WhisperFeatureExtractor",
        {
            **BART,
            "max_source_positions": 100,
            "pad_token_id": 0,
            "vocab_size": 50,
            "eos_token_id": 1,
            "bos_token_id": 1,
            "decoder_start_token_id": 1,
        },
        {"chunk_length": 2},
    ),
    TinyAudio(
        "ast",
        "audio-spectrogram-transformer",
        "ASTFeatureExtractor",
        {**TRANSFORMER, "max_length": 128, "num_mel_bins": 32},
        {"max_length": 128, "num_mel_bins": 32},
        "pooler",
    ),
    TinyAudio(
        "clap",
        "clap_audio_model",
        "ClapFeatureExtractor",
        {
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "window_size": 4,
            "patch_embeds_hidden_size": 16,
            "hidden_size": 32,
            "depths": [1, 1],
            "num_attention_heads": [2, 4],
            "enable_fusion": False,
            "initializer_range": 0.1,
        },
        {"feature_size": 16, "truncation": "rand_trunc", "max_length_s": 2},
        "pooler",
    ),
    TinyAudio(
        "parakeet",
        "parakeet_encoder",
        "ParakeetFeatureExtractor",
        {**TRANSFORMER, "subsampling_conv_channels": 8},
        masked=True,
    ),
    TinyAudio(
        "nemotron",
        "nemotron_asr_streaming_encoder",
        "NemotronAsrStreamingFeatureExtractor",
        {**TRANSFORMER, "subsampling_conv_channels": 8, "num_mel_bins": 80},
        masked=True,
    ),
    TinyAudio(
        "speech_to_text",
        "speech_to_text",
        "Speech2TextFeatureExtractor",
        {
            **BART,
            "conv_channels": 32,
            "vocab_size": 50,
        },
    ),
    TinyAudio(
        "wav2vec2_bert",
        "wav2vec2-bert",
        "SeamlessM4TFeatureExtractor",
        TRANSFORMER,
        masked=True,
    ),
    TinyAudio("lasr", "lasr_encoder", "LasrFeatureExtractor", TRANSFORMER, masked=True),
)


def save_audio(tiny: TinyAudio, directory: Path) -> Path:
    """Write the model and its feature extractor."""
    torch.manual_seed(0)
    with quiet():
        config = CONFIG_MAPPING[tiny.model_type](**tiny.config)
        if tiny.model_type == "clap_audio_model":
            model = transformers.ClapAudioModel(config)
        else:
            model = AutoModel.from_config(config)
        model.save_pretrained(directory)
        getattr(transformers, tiny.extractor)(**tiny.options).save_pretrained(directory)
    return directory
