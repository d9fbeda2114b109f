"""A Hugging Face audio feature extractor as an `AudioInput`, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank, window_function

from export.quiet import quiet
from export.source import first_line
from fmrt.errors import ExportError
from fmrt.manifest import AudioInput
from fmrt.preprocess.audio import AudioPreprocessor, decode
from fmrt.preprocess.spectrogram import FEATURES_FILE, Spectrogram

# Of a feature. transformers' Whisper extractor computes in float32, where the logarithm of a quiet
# band is that far off.
TOLERANCE = 2e-3
# A waveform model states no longest sound, and its memory grows with the square of the length.
DEFAULT_SECONDS = 60.0


class FeatureExtractor:
    """Features as Hugging Face computes them, and the same as an `AudioInput`.

    Args:
        path: the model's directory.

    Raises:
        ExportError: the extractor cannot be loaded, or does what the runtime does not know.
    """

    def __init__(self, path: Path) -> None:
        try:
            with quiet():
                self.extractor: Any = AutoFeatureExtractor.from_pretrained(
                    str(path), local_files_only=True
                )
        except Exception as e:  # whatever a malformed configuration provokes
            raise ExportError(
                f"the feature extractor of {path} cannot be loaded: {first_line(e)}"
            ) from e
        self.kind = type(self.extractor).__name__
        if self.kind not in KINDS:
            raise ExportError(
                f"feature extractor {self.kind} is not supported; those that are: "
                f"{', '.join(KINDS)}"
            )
        if self.kind == "ClapFeatureExtractor" and self.extractor.truncation == "fusion":
            raise ExportError(
                "CLAP with feature fusion is not supported: its extractor picks parts of a sound "
                "at random"
            )

    @property
    def rate(self) -> int:
        """Samples a second."""
        return int(self.extractor.sampling_rate)

    def __call__(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Model input of one waveform ``[samples]``, without the batch axis."""
        options = {"truncation": "rand_trunc"} if self.kind == "ClapFeatureExtractor" else {}
        with quiet():
            batch = self.extractor(
                waveform, sampling_rate=self.rate, return_tensors="np", **options
            )
        return np.asarray(batch[self.input_name][0], np.float32)

    @property
    def input_name(self) -> str:
        """Name of the model's main input."""
        return str(self.extractor.model_input_names[0])

    def spec(self, min_samples: int, seconds: float | None) -> AudioInput:
        """The extractor in the runtime's terms.

        Args:
            min_samples: fewest that the model takes.
            seconds: of the longest sound, for models that do not say.
        """
        parameters = KINDS[self.kind](self.extractor)
        samples = int((seconds or DEFAULT_SECONDS) * self.rate)
        if parameters is not None:
            samples = parameters["samples"]
        return AudioInput(
            sampling_rate=self.rate,
            input_name=self.input_name,
            min_samples=min_samples,
            max_samples=samples,
            fixed=parameters is not None,
            normalize=parameters is None and bool(self.extractor.do_normalize),
            hop_length=self.extractor.hop_length if self.kind == "WhisperFeatureExtractor" else 0,
            spectrogram=None if parameters is None else _without(parameters, "samples", "arrays"),
        )

    def write_arrays(self, directory: Path) -> tuple[str, ...]:
        """Write ``features.safetensors`` if the features need it; returns its name then."""
        parameters = KINDS[self.kind](self.extractor)
        if parameters is None:
            return ()
        save_file(parameters["arrays"], directory / FEATURES_FILE)
        return (FEATURES_FILE,)

    def check(self, spec: AudioInput, directory: Path, sounds: Sequence[bytes]) -> None:
        """Compare the runtime's features with the extractor's.

        Raises:
            ExportError: they differ.
        """
        spectrogram = None
        if spec.spectrogram is not None:
            spectrogram = Spectrogram(directory / FEATURES_FILE, spec.spectrogram)
        ours = AudioPreprocessor(spec, spectrogram)
        for data in sounds:
            waveform = decode(data, spec.sampling_rate, spec.max_samples)[: spec.max_samples]
            error = np.abs(ours.load(data).values - self(waveform)).max()
            if error > TOLERANCE:
                raise ExportError(
                    f"feature extractor {self.kind} is not supported: its features differ from "
                    f"the runtime's by {error:.1e}"
                )


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _whisper(extractor: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "samples": extractor.n_samples,
        "fft_length": extractor.n_fft,
        "hop_length": extractor.hop_length,
        "center": True,
        "remove_dc_offset": False,
        "preemphasis": 0.0,
        "mel_floor": 1e-10,
        "logarithm": "log10",
        "fill": "zeros",
        "frames": extractor.nb_max_frames,
        "dynamic_range": 8.0,
        "shift": 4.0,
        "scale": 0.25,
        "axes": "mel_time",
        "arrays": {
            "window": window_function(extractor.n_fft, "hann"),
            "mel_filters": np.ascontiguousarray(extractor.mel_filters, np.float64),
        },
    }


def _ast(extractor: Any) -> dict[str, Any]:  # noqa: ANN401
    hop, frame, fft = 160, 400, 512  # Kaldi's 10 ms and 25 ms at 16 kHz
    filters = mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=extractor.num_mel_bins,
        min_frequency=20,
        max_frequency=extractor.sampling_rate // 2,
        sampling_rate=extractor.sampling_rate,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    unit = extractor.do_normalize
    return {
        "samples": frame + (extractor.max_length - 1) * hop,
        "fft_length": fft,
        "hop_length": hop,
        "center": False,
        "remove_dc_offset": True,
        "preemphasis": 0.97,
        "mel_floor": float(np.finfo(np.float32).eps),
        "logarithm": "log",
        "fill": "frames",
        "frames": extractor.max_length,
        "dynamic_range": None,
        "shift": -extractor.mean if unit else 0.0,
        "scale": 1 / (2 * extractor.std) if unit else 1.0,
        "axes": "time_mel",
        "arrays": {
            "window": window_function(frame, "hann", periodic=False),
            "mel_filters": np.ascontiguousarray(filters, np.float64),
        },
    }


def _clap(extractor: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "samples": extractor.nb_max_samples,
        "fft_length": extractor.fft_window_size,
        "hop_length": extractor.hop_length,
        "center": True,
        "remove_dc_offset": False,
        "preemphasis": 0.0,
        "mel_floor": 1e-10,
        "logarithm": "dB",
        "fill": "repeat" if extractor.padding == "repeatpad" else "zeros",
        "frames": extractor.nb_max_samples // extractor.hop_length + 1,
        "dynamic_range": None,
        "shift": 0.0,
        "scale": 1.0,
        "axes": "channel_time_mel",
        "arrays": {
            "window": window_function(extractor.fft_window_size, "hann"),
            "mel_filters": np.ascontiguousarray(extractor.mel_filters_slaney, np.float64),
        },
    }


KINDS: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "Wav2Vec2FeatureExtractor": lambda _: None,
    "WhisperFeatureExtractor": _whisper,
    "ASTFeatureExtractor": _ast,
    "ClapFeatureExtractor": _clap,
}


def reference_sounds() -> list[bytes]:
    """Small sound files of several lengths, rates and channel counts, drawn from a seed.

    Tones, sweeps, noise and silence; the last is longer than ten seconds.
    """
    rng = np.random.default_rng(0)

    def drawn(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
        time = np.arange(int(seconds * rate))[:, None] / rate
        start = 110.0 * np.arange(2, 2 + channels)
        sweep = np.sin(2 * np.pi * (start + 300.0 * time / seconds) * time)
        noise = rng.normal(0, 0.02, (len(time), channels))
        return (0.5 * sweep * np.hanning(len(time))[:, None] + noise).astype(np.float32)

    def file(samples: NDArray[np.float32], rate: int, kind: str = "WAV") -> bytes:
        out = io.BytesIO()
        soundfile.write(out, samples, rate, format=kind, subtype="PCM_16")
        return out.getvalue()

    return [
        file(drawn(0.31, 16_000), 16_000),
        file(drawn(0.9, 16_000), 16_000, "FLAC"),
        file(drawn(0.5, 48_000, 2), 48_000, "FLAC"),
        file(drawn(0.4, 22_050), 22_050),
        file(np.zeros(8_000, np.float32), 16_000),
        file(drawn(11.0, 4_000), 4_000, "FLAC"),
    ]
