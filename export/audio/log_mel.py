"""Hugging Face's feature extractors in the terms of the runtime's `Spectrogram`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SequenceFeatureExtractor as Extractor
from transformers.audio_utils import mel_filter_bank, window_function

from fmrt.errors import ExportError

# Kaldi's 10 ms and 25 ms at 16 kHz, and its least power of a band.
HOP, FRAME, FFT = 160, 400, 512
LEAST_POWER = float(np.finfo(np.float32).eps)
SIXTEEN_BITS = 32768.0


@dataclass(frozen=True)
class LogMel:
    """An extractor's features.

    Attributes:
        parameters: The parameters of `Spectrogram`.
        window: The window, float64 ``[frame]``.
        mel_filters: The mel filters, float64 ``[fft / 2 + 1, mels]``.
        samples: The samples that every sound is brought to; None where a sound keeps its length.
        min_samples: The smallest number of samples that gives features.
    """

    parameters: Mapping[str, Any]
    window: NDArray[np.float64]
    mel_filters: NDArray[np.float64]
    samples: int | None = None
    min_samples: int = 1

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Window and filters by their names in the bundle."""
        arrays = {"window": self.window, "mel_filters": self.mel_filters}
        return {k: np.ascontiguousarray(v, np.float64) for k, v in arrays.items()}

    @property
    def in_unit(self) -> bool:
        """Whether bands are normalized over the time of a sound."""
        return self.parameters.get("bands") is not None


# Parameters that an extractor does not use.
PLAIN: Mapping[str, Any] = {
    "remove_dc_offset": False,
    "preemphasis": 0.0,
    "dynamic_range": None,
    "shift": 0.0,
    "scale": 1.0,
}
OWN_LENGTH: Mapping[str, Any] = {"fill": "none", "frames": None, "axes": "time_mel"}


def _whisper(extractor: Extractor) -> LogMel:
    parameters = {
        **PLAIN,
        "fft_length": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "center": True,
        "mel_floor": 1e-10,
        "logarithm": "log10",
        "fill": "zeros",
        "frames": extractor.nb_max_frames,
        "dynamic_range": 8.0,
        "shift": 4.0,
        "scale": 0.25,
        "axes": "mel_time",
    }
    window = window_function(extractor.n_fft, "hann")
    return LogMel(parameters, window, extractor.mel_filters, extractor.n_samples)


def _clap(extractor: Extractor) -> LogMel:
    if extractor.truncation == "fusion":
        raise ExportError(
            "CLAP with feature fusion is not supported: its extractor picks parts of a sound at "
            "random"
        )
    parameters = {
        **PLAIN,
        "fft_length": extractor.fft_window_size,
        "hop_length": extractor.hop_length,
        "center": True,
        "mel_floor": 1e-10,
        "logarithm": "dB",
        "fill": "repeat" if extractor.padding == "repeatpad" else "zeros",
        "frames": extractor.nb_max_samples // extractor.hop_length + 1,
        "axes": "channel_time_mel",
    }
    window = window_function(extractor.fft_window_size, "hann")
    return LogMel(parameters, window, extractor.mel_filters_slaney, extractor.nb_max_samples)


KALDI: Mapping[str, Any] = {
    **PLAIN,
    "fft_length": FFT,
    "hop_length": HOP,
    "center": False,
    "remove_dc_offset": True,
    "preemphasis": 0.97,
    "mel_floor": LEAST_POWER,
    "logarithm": "log",
}


def _kaldi_filters(extractor: Extractor) -> NDArray[np.float64]:
    filters: NDArray[np.float64] = mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=extractor.num_mel_bins,
        min_frequency=20,
        max_frequency=extractor.sampling_rate // 2,
        sampling_rate=extractor.sampling_rate,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return filters


def _ast(extractor: Extractor) -> LogMel:
    unit = extractor.do_normalize
    parameters = {
        **KALDI,
        "fill": "frames",
        "frames": extractor.max_length,
        "shift": -extractor.mean if unit else 0.0,
        "scale": 1 / (2 * extractor.std) if unit else 1.0,
        "axes": "time_mel",
    }
    window = window_function(FRAME, "hann", periodic=False)
    samples = FRAME + (extractor.max_length - 1) * HOP
    return LogMel(parameters, window, _kaldi_filters(extractor), samples)


def _speech_to_text(extractor: Extractor) -> LogMel:
    _check_dither(extractor)
    bands = {
        "mean": extractor.normalize_means,
        "variance": extractor.normalize_vars,
        "freedom": 0,
        "variance_guard": 0.0,
        "deviation_guard": 0.0,
    }
    return _povey(extractor, bands if extractor.do_ceptral_normalize else None)


def _seamless(extractor: Extractor) -> LogMel:
    bands = {
        "mean": True,
        "variance": True,
        "freedom": 1,
        "variance_guard": 1e-7,
        "deviation_guard": 0.0,
    }
    return _povey(extractor, bands, extractor.stride)


def _povey(extractor: Extractor, bands: Mapping[str, Any] | None, stack: int = 1) -> LogMel:
    parameters = {**KALDI, **OWN_LENGTH, "gain": SIXTEEN_BITS, "bands": bands, "stack": stack}
    window = window_function(FRAME, "povey", periodic=False)
    # A variance needs two frames.
    least = FRAME + (max(2, stack) - 1) * HOP
    return LogMel(parameters, window, _kaldi_filters(extractor), min_samples=least)


def _parakeet(extractor: Extractor) -> LogMel:
    bands = {
        "mean": True,
        "variance": True,
        "freedom": 1,
        "variance_guard": 0.0,
        "deviation_guard": 1e-5,
    }
    return _nemo(extractor, bands)


def _nemo(extractor: Extractor, bands: Mapping[str, Any] | None = None) -> LogMel:
    dtype = getattr(torch, getattr(extractor, "mel_filters_dtype", "float32"))
    parameters = {
        **PLAIN,
        **OWN_LENGTH,
        "wave_preemphasis": extractor.preemphasis or 0.0,
        "fft_length": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "center": True,
        "edges": "constant",
        "whole_hops": True,
        "mel_floor": 0.0,
        "mel_guard": 2.0**-24,
        "logarithm": "log",
        "bands": bands,
    }
    short = torch.hann_window(extractor.win_length, periodic=False).to(dtype).double().numpy()
    beside = extractor.n_fft - extractor.win_length
    window = np.pad(short, (beside // 2, beside - beside // 2))
    filters = extractor.mel_filters.to(dtype).double().numpy().T
    return LogMel(parameters, window, filters, min_samples=2 * extractor.hop_length)


def _lasr(extractor: Extractor) -> LogMel:
    parameters = {
        **PLAIN,
        **OWN_LENGTH,
        "fft_length": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "center": False,
        "mel_floor": 1e-5,
        "logarithm": "log",
    }
    window = window_function(extractor.win_length, "hann", periodic=False)
    filters = extractor.mel_filters.numpy()
    return LogMel(parameters, window, filters, min_samples=extractor.win_length)


def _check_dither(extractor: Extractor) -> None:
    if extractor.dither:
        raise ExportError(
            f"{type(extractor).__name__} with dither is not supported: it adds random noise"
        )


# None: the waveform itself is the model's input.
KINDS: dict[str, Callable[[Extractor], LogMel | None]] = {
    "Wav2Vec2FeatureExtractor": lambda _: None,
    "WhisperFeatureExtractor": _whisper,
    "ASTFeatureExtractor": _ast,
    "ClapFeatureExtractor": _clap,
    "SeamlessM4TFeatureExtractor": _seamless,
    "Speech2TextFeatureExtractor": _speech_to_text,
    "ParakeetFeatureExtractor": _parakeet,
    "NemotronAsrStreamingFeatureExtractor": _nemo,
    "LasrFeatureExtractor": _lasr,
}
