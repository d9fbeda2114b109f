"""Log-mel spectrograms in NumPy: the short-time Fourier transform, mel bands, logarithm, scale.

The window and the mel filters come with the bundle, as the exporter found them in the model's
feature extractor; nothing about them is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

FEATURES_FILE = "features.safetensors"
LOGARITHMS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "log": np.log,
    "log10": np.log10,
    # Decibels of a power spectrogram against 1.
    "dB": lambda power: 10.0 * np.log10(power),
}
# Of parameters that a manifest may leave out.
DEFAULTS: Mapping[str, Any] = {
    "gain": 1.0,
    "wave_preemphasis": 0.0,
    "edges": "reflect",
    "whole_hops": False,
    "mel_guard": 0.0,
    "bands": None,
    "stack": 1,
}


class Spectrogram:
    """Computes the features of one sound.

    Args:
        file: ``features.safetensors`` with ``window`` ``[frame]`` and ``mel_filters``
            ``[fft / 2 + 1, mels]``, float64.
        parameters: of the manifest:
            ``gain``: of the waveform, before anything else.
            ``wave_preemphasis``: of the waveform, whose first sample stays as it is.
            ``fft_length``, ``hop_length``: in samples.
            ``center``: whether frames are centred on their time, with the ends continued by
            ``edges``: ``reflect`` or ``constant`` zeros.
            ``remove_dc_offset``, ``preemphasis``: of each frame, as in Kaldi.
            ``mel_floor``, ``mel_guard``, ``logarithm``: the least power of a band, what is added
            to it, and a key of `LOGARITHMS`.
            ``fill``: what makes a short sound long: ``zeros`` or ``repeat`` before the transform,
            ``frames`` of zeros behind it, or ``none``: a sound has the frames that it has.
            ``frames``: of every result; None without ``fill``.
            ``whole_hops``: whether a last frame behind the last whole hop is left out.
            ``dynamic_range``: most below the loudest value, or None.
            ``bands``: None, or how each is normalized over the time of the sound, see `_unit`.
            ``stack``: frames joined into one; what is left over is left out.
            ``shift``, ``scale``: ``(values + shift) * scale`` at the end.
            ``axes``: of the result, from ``[frames, mels]``: ``time_mel``, ``mel_time``, or
            ``channel_time_mel``.
    """

    def __init__(self, file: Path, parameters: Mapping[str, Any]) -> None:
        arrays = load_file(file)
        self._window: NDArray[np.float64] = arrays["window"]
        self._filters: NDArray[np.float64] = arrays["mel_filters"]
        self._p = {**DEFAULTS, **parameters}

    def __call__(self, waveform: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
        """Features of a waveform ``[n]`` with ``n <= samples``, float32, axes as stated."""
        p = self._p
        mel = self._mel(_filled(waveform, samples, p["fill"]))[: self._frames(len(waveform))]
        if p["dynamic_range"] is not None:
            mel = np.maximum(mel, mel.max() - p["dynamic_range"])
        if p["fill"] != "none" and len(mel) < p["frames"]:
            mel = np.pad(mel, ((0, p["frames"] - len(mel)), (0, 0)))
        if p["bands"] is not None:
            mel = _unit(mel, p["bands"])
        if p["stack"] > 1:
            mel = mel[: len(mel) // p["stack"] * p["stack"]].reshape(-1, p["stack"] * mel.shape[1])
        values: NDArray[np.float32] = ((mel + p["shift"]) * p["scale"]).astype(np.float32)
        if p["axes"] == "mel_time":
            return np.ascontiguousarray(values.T)
        return values[None] if p["axes"] == "channel_time_mel" else values

    def _frames(self, samples: int) -> int | None:
        """Most frames of a sound of so many samples, if there is a limit."""
        if self._p["whole_hops"]:
            return samples // int(self._p["hop_length"])
        return None if self._p["frames"] is None else int(self._p["frames"])

    def _mel(self, waveform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-mel bands, ``[frames, mels]``."""
        p, size = self._p, len(self._window)
        waveform = waveform * p["gain"]
        if p["wave_preemphasis"]:
            waveform[1:] -= p["wave_preemphasis"] * waveform[:-1]
        if p["center"]:
            waveform = np.pad(waveform, size // 2, mode=p["edges"])
        frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[:: p["hop_length"]]
        if p["remove_dc_offset"]:
            frames = frames - frames.mean(axis=1, keepdims=True)
        if p["preemphasis"]:
            # The first sample has none before it, and counts as its own predecessor.
            before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
            frames = frames - p["preemphasis"] * before
        spectrum = np.fft.rfft(frames * self._window, p["fft_length"], axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mel = np.maximum(power @ self._filters, p["mel_floor"]) + p["mel_guard"]
        return LOGARITHMS[p["logarithm"]](mel)


def _filled(waveform: NDArray[np.float32], samples: int, fill: str) -> NDArray[np.float64]:
    if fill == "repeat":
        waveform = np.tile(waveform, samples // len(waveform))
    if fill in ("zeros", "repeat"):
        waveform = np.pad(waveform, (0, samples - len(waveform)))
    return waveform.astype(np.float64)


def _unit(mel: NDArray[np.float64], bands: Mapping[str, Any]) -> NDArray[np.float64]:
    """Bands of zero mean and unit variance.

    Args:
        mel: ``[frames, mels]``.
        bands: ``mean``, ``variance``: whether each is done; ``freedom``: taken off the number of
            frames in the variance; ``variance_guard``, ``deviation_guard``: added to each. A band
            that never changes, with no guard, becomes zero.
    """
    if bands["mean"]:
        mel = mel - mel.mean(axis=0)
    if not bands["variance"]:
        return mel
    variance = mel.var(axis=0, ddof=bands["freedom"]) + bands["variance_guard"]
    deviation = np.sqrt(variance) + bands["deviation_guard"]
    return mel / np.where(deviation == 0, 1.0, deviation)
