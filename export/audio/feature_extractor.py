"""A Hugging Face audio feature extractor as an `AudioInput`, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import AutoFeatureExtractor, SequenceFeatureExtractor

from fmrt.bundle.manifest import AudioInput
from fmrt.errors import ExportError
from fmrt.export.audio.log_mel import KINDS
from fmrt.export.loading.pretrained import load_pretrained
from fmrt.export.quiet import quiet
from fmrt.preprocess.audio import AudioPreprocessor, decode
from fmrt.preprocess.spectrogram import FEATURES_FILE, Spectrogram

# The tolerance of a feature. transformers' Whisper extractor computes in float32, where the
# logarithm of a quiet band is that far off.
TOLERANCE = 2e-3
# A waveform model states no longest sound, and its memory grows with the square of the length.
DEFAULT_SECONDS = 60.0
MASK = "attention_mask"


def load_extractor(path: Path) -> SequenceFeatureExtractor:
    """The feature extractor of a directory."""
    what = f"the feature extractor of {path}"
    found: SequenceFeatureExtractor = load_pretrained(
        AutoFeatureExtractor.from_pretrained, path, what
    )
    return found


def batch_of(
    extractor: SequenceFeatureExtractor, waveform: NDArray[np.float32], *, masked: bool = False
) -> Mapping[str, NDArray[Any]]:
    """All that an extractor gives for a waveform ``[samples]``, with the batch axis.

    Args:
        extractor: The extractor.
        waveform: The waveform.
        masked: Whether to ask for the mask of frames, where the extractor gives none unasked.
    """
    clap = type(extractor).__name__ == "ClapFeatureExtractor"
    options: dict[str, Any] = {"truncation": "rand_trunc"} if clap else {}
    if masked:
        options["return_attention_mask"] = True
    with quiet():
        found: Mapping[str, NDArray[Any]] = extractor(
            waveform, sampling_rate=extractor.sampling_rate, return_tensors="np", **options
        )
    return found


class FeatureExtractor:
    """Features as Hugging Face computes them, and the same as an `AudioInput`.

    Args:
        path: The model's directory.

    Raises:
        ExportError: The extractor cannot be loaded, or does what the runtime does not know.
    """

    def __init__(self, path: Path) -> None:
        self.extractor = load_extractor(path)
        self.kind = type(self.extractor).__name__
        if self.kind not in KINDS:
            raise ExportError(
                f"feature extractor {self.kind} is not supported; those that are: "
                f"{', '.join(KINDS)}"
            )
        self.features = KINDS[self.kind](self.extractor)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return int(self.extractor.sampling_rate)

    def __call__(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Model input of one waveform ``[samples]``, without the batch axis."""
        batch = batch_of(self.extractor, waveform)
        values: NDArray[np.float32] = np.asarray(batch[self.input_name][0], np.float32)
        if self.features is not None and self.features.samples is None and MASK in batch:
            values = values[np.asarray(batch[MASK][0], bool)]
        return values

    @property
    def input_name(self) -> str:
        """Name of the model's main input."""
        return str(self.extractor.model_input_names[0])

    def spec(self, min_samples: int, seconds: float | None) -> AudioInput:
        """The extractor in the runtime's terms.

        Args:
            min_samples: The smallest number of samples that the model takes.
            seconds: The seconds of the longest sound, for models that do not say.
        """
        features = self.features
        own = None if features is None else features.samples
        return AudioInput(
            sampling_rate=self.rate,
            input_name=self.input_name,
            min_samples=max(min_samples, 1 if features is None else features.min_samples),
            max_samples=own or int((seconds or DEFAULT_SECONDS) * self.rate),
            fixed=own is not None,
            normalize=features is None and bool(self.extractor.do_normalize),
            hop_length=self.extractor.hop_length if self.kind == "WhisperFeatureExtractor" else 0,
            spectrogram=None if features is None else features.parameters,
        )

    def write_arrays(self, directory: Path) -> tuple[str, ...]:
        """Write ``features.safetensors`` if the features need it; returns its name then."""
        if self.features is None:
            return ()
        save_file(self.features.arrays, directory / FEATURES_FILE)
        return (FEATURES_FILE,)

    def sounds(self) -> list[bytes]:
        """Reference sounds.

        Silence is not one of them where bands are normalized over time: transformers' extractors
        then divide the rounding errors of float32 by each other.
        """
        silent = self.features is not None and self.features.in_unit
        return [data for data in reference_sounds() if not (silent and is_silent(data))]

    def check(self, spec: AudioInput, directory: Path, sounds: Sequence[bytes]) -> None:
        """Compare the runtime's features with the extractor's.

        Raises:
            ExportError: The features differ.
        """
        spectrogram = None
        if spec.spectrogram is not None:
            spectrogram = Spectrogram(directory / FEATURES_FILE, spec.spectrogram)
        ours = AudioPreprocessor(spec, spectrogram)
        for data in sounds:
            waveform = decode(data, spec.sampling_rate, spec.max_samples).samples
            error = np.abs(ours.load(data).values - self(waveform)).max()
            if not error <= TOLERANCE:
                raise ExportError(
                    f"feature extractor {self.kind} is not supported: its features differ from "
                    f"the runtime's by {error:.1e}"
                )


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


def is_silent(data: bytes) -> bool:
    """Whether all of a file's samples are zero."""
    return not soundfile.read(io.BytesIO(data))[0].any()
