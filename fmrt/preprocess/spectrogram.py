"""Log-mel spectrograms in NumPy: the short-time Fourier transform, mel bands, logarithm, scale.

The window and the mel filters come with the bundle, as the exporter found them in the model's
feature extractor; nothing about them is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from fmrt.bundle.inputs import BandsSpec, SpectrogramSpec
from fmrt.bundle.regular import FIX
from fmrt.bundle.typed import decode
from fmrt.errors import BundleCorruptError, InputError, said
from fmrt.system.archive import BundleFile

FEATURES_FILE = "features.safetensors"
LOGARITHMS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "log": np.log,
    "log10": np.log10,
    # Decibels of a power spectrogram against 1.
    "dB": lambda power: 10.0 * np.log10(power),
}
# Mel bands, and numbers of one result, far above what models take.
MOST_BANDS = 4096
MOST_NUMBERS = 1 << 24


class Spectrogram:
    """Computes the features of one sound.

    Args:
        file: The file ``features.safetensors`` with ``window`` ``[frame]`` and ``mel_filters``
            ``[fft / 2 + 1, mels]``, float64.
        parameters: The manifest's numbers, see `fmrt.bundle.inputs.SpectrogramSpec`.

    Raises:
        BundleCorruptError: The file is malformed, or does not go with the parameters.
    """

    def __init__(self, file: BundleFile, parameters: Mapping[str, Any]) -> None:
        self._p = spec = decode(SpectrogramSpec, parameters, "spectrogram")
        try:
            arrays = load(file.read_bytes())
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
            raise BundleCorruptError(f"{file} holds no arrays: {said(e)}; {FIX}") from e
        self._window = _array(file, arrays, "window", 1)
        self._filters = _array(file, arrays, "mel_filters", 2)
        (size,), (powers, bands) = self._window.shape, self._filters.shape
        if size > spec.fft_length or powers != spec.fft_length // 2 + 1 or bands > MOST_BANDS:
            raise BundleCorruptError(
                f"{file} holds a window of {size} and mel filters of {powers} x {bands}, which do "
                f"not go with fft_length {spec.fft_length}; {FIX}"
            )
        if (spec.frames or 1) * bands > MOST_NUMBERS:
            raise BundleCorruptError(
                f"{file} holds {bands} mel filters, too many for {spec.frames} frames; {FIX}"
            )

    def __call__(self, waveform: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
        """Features of a waveform ``[n]`` with ``n <= samples``, float32, axes as stated."""
        p = self._p
        mel = self._mel(_filled(waveform, samples, p.fill))[: self._frames(len(waveform))]
        if p.dynamic_range is not None:
            mel = np.maximum(mel, mel.max() - p.dynamic_range)
        if p.frames is not None and len(mel) < p.frames:
            mel = np.pad(mel, ((0, p.frames - len(mel)), (0, 0)))
        if p.bands is not None:
            mel = _unit(mel, p.bands)
        if p.stack > 1:
            mel = mel[: len(mel) // p.stack * p.stack].reshape(-1, p.stack * mel.shape[1])
        values: NDArray[np.float32] = ((mel + p.shift) * p.scale).astype(np.float32)
        if p.axes == "mel_time":
            return np.ascontiguousarray(values.T)
        return values[None] if p.axes == "channel_time_mel" else values

    def _frames(self, samples: int) -> int | None:
        """Most frames of a sound of so many samples, if there is a limit."""
        if self._p.whole_hops:
            return samples // int(self._p.hop_length)
        return None if self._p.frames is None else int(self._p.frames)

    def _mel(self, waveform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-mel bands, ``[frames, mels]``."""
        p, size = self._p, len(self._window)
        waveform = waveform * p.gain
        if p.wave_preemphasis:
            waveform[1:] -= p.wave_preemphasis * waveform[:-1]
        if p.center:
            waveform = np.pad(waveform, size // 2, mode=p.edges)
        if len(waveform) < size:
            raise InputError(f"{len(waveform)} samples, and a frame takes {size}")
        frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[:: p.hop_length]
        if p.remove_dc_offset:
            frames = frames - frames.mean(axis=1, keepdims=True)
        if p.preemphasis:
            # The first sample has none before it, and counts as its own predecessor.
            before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
            frames = frames - p.preemphasis * before
        spectrum = np.fft.rfft(frames * self._window, p.fft_length, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mel = np.maximum(power @ self._filters, p.mel_floor) + p.mel_guard
        return LOGARITHMS[p.logarithm](mel)


def _array(
    file: BundleFile, arrays: Mapping[str, NDArray[Any]], name: str, axes: int
) -> NDArray[np.float64]:
    """An array of numbers with so many axes."""
    found = arrays.get(name)
    if found is None or found.ndim != axes or not found.size or found.dtype.kind != "f":
        kind = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
        raise BundleCorruptError(f"{file} holds {kind} as {name!r}; {FIX}")
    if not np.isfinite(found).all():
        raise BundleCorruptError(f"{file} holds NaN or infinity in {name!r}; {FIX}")
    return found


def _filled(waveform: NDArray[np.float32], samples: int, fill: str) -> NDArray[np.float64]:
    if fill == "repeat":
        waveform = np.tile(waveform, samples // len(waveform))
    if fill in ("zeros", "repeat"):
        waveform = np.pad(waveform, (0, samples - len(waveform)))
    return waveform.astype(np.float64)


def _unit(mel: NDArray[np.float64], bands: BandsSpec) -> NDArray[np.float64]:
    """Bands ``[frames, mels]`` of zero mean and unit variance, as far as asked for."""
    if bands.mean:
        mel = mel - mel.mean(axis=0)
    if not bands.variance:
        return mel
    variance = mel.var(axis=0, ddof=bands.freedom) + bands.variance_guard
    deviation = np.sqrt(variance) + bands.deviation_guard
    return mel / np.where(deviation == 0, 1.0, deviation)
