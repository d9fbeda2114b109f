"""Sound files to waveforms or spectrograms, as Hugging Face's feature extractors make them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from fmrt.arrays import Feeds
from fmrt.bundle.manifest import AudioInput
from fmrt.errors import InputError, quoted
from fmrt.preprocess.containers import TRUNCATED, Stream, begins_as_sound, streams
from fmrt.preprocess.item_file import open_regular
from fmrt.preprocess.spectrogram import Spectrogram
from fmrt.system.limits import DEFAULT, Budget, Limits

Samples = NDArray[np.float32]
# More channels in an array mean that its axes are exchanged.
MAX_CHANNELS = 8
# The part of the samples that a file states that must be there: lossy formats pad their ends.
WHOLE = 0.95
# Samples up to which a sound's length is counted, where its file does not know it.
MOST_COUNTED = 1 << 27
# Added to a waveform's variance, as in transformers' Wav2Vec2FeatureExtractor.
VARIANCE_GUARD = 1e-7
# Samples after the last one wanted that soxr must see, so that none of those wanted changes: more
# than its filter is long. At most rates, one second is more.
FILTER = 1024
# Samples that are decoded at a time, of all channels.
BLOCK = 1 << 18
# Bytes that a sample takes while a sound is decoded: as float32, once in its block.
SAMPLE_BYTES = 8


class Waveform(NamedTuple):
    """The start of a sound, decoded.

    Attributes:
        samples: The samples, float32 ``[samples]``, mono, at the model's rate; as many as the model
            takes.
        length: The number of samples of the whole sound at that rate.
    """

    samples: Samples
    length: int


@dataclass(frozen=True)
class Sound:
    """One sound, ready for the model.

    Attributes:
        values: The values of the model's main input, float32, without the batch axis.
        samples: The sound's samples at the model's rate, before it was cut.
    """

    values: NDArray[np.float32]
    samples: int


@dataclass(frozen=True)
class Sounds:
    """The sounds of one window.

    Attributes:
        sounds: The sounds, in the order of the items.
        spec: The manifest's numbers.
        errors: The sounds that cannot be embedded, by row.
    """

    sounds: Sequence[Sound]
    spec: AudioInput
    errors: Mapping[int, InputError] = field(default_factory=dict)
    counted = True

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples that the model sees of each sound, int64 ``[n]``."""
        fixed = self.spec.max_samples if self.spec.fixed else 0
        seen = [max(fixed, min(s.samples, self.spec.max_samples)) for s in self.sounds]
        return np.array(seen, np.int64)

    @property
    def cut(self) -> Sequence[int]:
        """Samples, before, of the sounds that were cut."""
        return [s.samples for s in self.sounds if s.samples > self.spec.max_samples]

    def feeds(self, rows: NDArray[np.int64]) -> Feeds:
        """The model's main input ``[rows, ...]``, and ``attention_mask`` where there are frames.

        The mask is int64 ``[rows, frames]``: 1 where a frame holds some of the sound; or, with
        sounds filled up to the longest, ``[rows, samples or frames]``: 1 where there is one.
        """
        sounds = [self.sounds[row].values for row in rows]
        if self.spec.masked:
            return self._masked(sounds)
        feeds: dict[str, NDArray[Any]] = {self.spec.input_name: np.stack(sounds)}
        if self.spec.hop_length:
            frames = np.arange(self.spec.max_samples // self.spec.hop_length)
            filled = [-(-self.sounds[row].samples // self.spec.hop_length) for row in rows]
            feeds["attention_mask"] = (frames < np.array(filled)[:, None]).astype(np.int64)
        return feeds

    def _masked(self, sounds: Sequence[NDArray[np.float32]]) -> Feeds:
        lengths = np.array([len(values) for values in sounds])
        filled = np.zeros((len(sounds), lengths.max(), *sounds[0].shape[1:]), np.float32)
        for row, values in zip(filled, sounds, strict=True):
            row[: len(values)] = values
        mask = (np.arange(filled.shape[1]) < lengths[:, None]).astype(np.int64)
        return {self.spec.input_name: filled, "attention_mask": mask}

    def keys(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The values, with their number of samples, which the mask depends on."""
        chosen = [self.sounds[row] for row in rows]
        return [f"{s.samples}{s.values.shape}".encode() + s.values.tobytes() for s in chosen]


class AudioPreprocessor:
    """Decodes with soundfile, resamples with soxr, and computes the model's features.

    Args:
        spec: The manifest's numbers.
        spectrogram: The spectrogram, which computes features from the waveform; None for models
            that take the waveform.
        limits: The limits of the memory for sounds that are decoded at the same time.
    """

    unit = "sound"
    parallel = True
    dedupe = False
    window_weight = 96_000_000  # bytes

    def __init__(
        self, spec: AudioInput, spectrogram: Spectrogram | None, limits: Limits = DEFAULT
    ) -> None:
        self._spec = spec
        self._budget = Budget(limits)
        self._spectrogram = spectrogram
        self.limit = spec.max_samples
        self.stride = spec.stride
        # Otherwise padding would change what convolutions and norms over time see.
        self.padded = spec.masked

    def load(self, item: object) -> Sound:
        """Decode a sound and compute the model's input.

        Args:
            item: A path, a file's bytes, or float32 ``[samples]`` or ``[samples, channels]`` at the
                model's sampling rate.

        Raises:
            InputError: The item is not a sound, or is corrupt, empty, silent in its header, or too
                short.
        """
        spec = self._spec
        samples, length = decode(item, spec.sampling_rate, spec.max_samples, self._budget)
        if length < spec.min_samples:
            raise InputError(
                f"{length} samples at {spec.sampling_rate:,} Hz, and the model needs "
                f"{spec.min_samples}"
            )
        if self._spectrogram is not None:
            return Sound(self._spectrogram(samples, spec.max_samples), length)
        return Sound(_normalized(samples) if spec.normalize else samples, length)

    def weight(self, loaded: Sound) -> int:
        """Bytes of a sound's input."""
        return loaded.values.nbytes

    def encode(self, loaded: Sequence[Sound], prompt: str, on_too_long: str) -> Sounds:
        """Hold the sounds of a window; one that was cut is an error if asked for."""
        del prompt
        errors: dict[int, InputError] = {}
        if on_too_long == "error":
            errors = {
                row: InputError(
                    f"{self.shown(sound.samples)}, and the model takes {self.shown(self.limit)}; "
                    "split it or allow truncation"
                )
                for row, sound in enumerate(loaded)
                if sound.samples > self.limit
            }
        return Sounds(loaded, self._spec, errors)

    def shown(self, length: int) -> str:
        """E.g. ``30.0 s``."""
        return f"{length / self._spec.sampling_rate:,.1f} s"

    def constants(self, prompt: str) -> Feeds:
        """Nothing: sounds have no prompt."""
        del prompt
        return {}


def decode(item: object, rate: int, most: int, budget: Budget | None = None) -> Waveform:
    """The first ``most`` samples of a raw item; what follows is not decoded.

    Args:
        item: A path, bytes, or an array, see `AudioPreprocessor.load`.
        rate: The samples per second to resample to; arrays must have it.
        most: The largest number of samples that the model takes.
        budget: The budget of memory; default one of its own.

    Raises:
        InputError: It is no sound that can be read.
    """
    if isinstance(item, np.ndarray):
        return Waveform(_mono(_checked(item[:most] if item.ndim else item)), len(item))
    with _opened(item) as file:
        try:
            return _decoded(streams(file), rate, most, budget or Budget())
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as e:
            if isinstance(e, InputError):
                raise
            raise InputError(f"not a sound that libsndfile can read, or corrupt: {_line(e)}") from e


def is_sound(path: Path) -> bool:
    """Whether a file begins as a sound does, and libsndfile opens it."""
    try:
        with open_regular(path) as file:
            if not begins_as_sound(file):
                return False
            with _SoundFile(file) as sound:
                return bool(sound.channels)
    except (InputError, OSError, RuntimeError):  # as libsndfile's are
        return False


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Reads on without a seek, which fails where a file's length is not known."""

    def seekable(self) -> bool:
        """As if it came through a pipe."""
        return False


class _Run(NamedTuple):
    """What was decoded of one stream, at its own rate, and how many samples it has."""

    rate: int
    samples: Samples
    length: int


def _decoded(found: Sequence[Stream], rate: int, most: int, budget: Budget) -> Waveform:
    """Decode streams until there is enough, and resample them."""
    runs: list[_Run] = []
    left = most
    with ExitStack() as held:
        for stream in found:
            with _SoundFile(stream.file) as sound:
                own = sound.samplerate
                stated = sound.frames if stream.frames is None else stream.frames
                wanted = _wanted(left, own, rate)
                sample_bytes = SAMPLE_BYTES * (1 + rate / own)
                if not runs:  # once, as who holds some must not wait for more
                    alone = len(found) == 1 and stated
                    needed = int((min(wanted, stated) if alone else wanted) * sample_bytes)
                    held.enter_context(budget.taking(min(needed, budget.limits.item_bytes)))
                room = int(budget.limits.item_bytes / sample_bytes)
                known = stream.frames is None
                # The last block of a known length may hold more.
                asked = min(wanted, stated) if known else wanted
                runs.append(_run(sound, stated, asked, room, budget.limits, known=known))
            left -= runs[-1].length * rate // own
        return _joined(runs, rate, most)


def _wanted(left: int, own: int, rate: int) -> int:
    """Samples to decode for ``left`` of them; to resample, some more are needed."""
    if own == rate:
        return max(0, left)
    return max(0, -(-left * own // rate) + max(own, FILTER))


def _run(
    sound: soundfile.SoundFile, stated: int, wanted: int, room: int, limits: Limits, *, known: bool
) -> _Run:
    samples = _read(sound, wanted, room, limits)
    done = len(samples)
    if done < WHOLE * min(wanted, stated):
        raise InputError(TRUNCATED)
    if done < wanted:  # it ended, whatever it states
        return _Run(sound.samplerate, samples, done)
    while not known and stated <= done < MOST_COUNTED // sound.channels:
        if not (count := len(_block(sound, BLOCK))):
            break
        done += count
    return _Run(sound.samplerate, samples, max(stated, done))


def _joined(runs: Sequence[_Run], rate: int, most: int) -> Waveform:
    """One waveform of all; streams of one rate are resampled as one."""
    parts: list[Samples] = []
    length = 0
    for own, group in groupby(runs, lambda run: run.rate):
        same = list(group)
        part = np.concatenate([run.samples for run in same]) if len(same) > 1 else same[0].samples
        total = sum(run.length for run in same)
        whole = len(part) == total
        if own != rate:
            part = soxr.resample(part, own, rate, quality="HQ")
        parts.append(part)
        length += len(part) if whole else (total * rate + own // 2) // own
    samples = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if not len(samples):
        raise InputError("the file holds no samples")
    return Waveform(samples[:most].copy() if len(samples) > most else samples, length)


def _read(sound: soundfile.SoundFile, wanted: int, room: int, limits: Limits) -> Samples:
    """Up to ``wanted`` samples, mono, block by block; the number in the header is not believed.

    Raises:
        InputError: There are more than ``room``, which is what memory allows.
    """
    blocks: list[Samples] = [np.empty(0, np.float32)]
    done = 0
    while done < wanted and len(block := _block(sound, wanted - done)):
        blocks.append(_mono(_finite(block)))
        done += len(block)
        if done > room:
            limits.check(
                f"{wanted:,} samples at {sound.samplerate:,} Hz",
                int(limits.item_bytes * wanted / room),
            )
    return np.concatenate(blocks)


def _block(sound: soundfile.SoundFile, most: int) -> Samples:
    """The next samples of each channel, float32 ``[samples, channels]``; none at the end."""
    size = max(1, BLOCK // sound.channels)
    block: Samples = sound.read(min(most, size), dtype="float32", always_2d=True)
    return block


def _opened(item: object) -> BinaryIO:
    """An item that is a file, open for reading."""
    if isinstance(item, bytes | bytearray | memoryview):
        return io.BytesIO(item)
    if not isinstance(item, str | Path):
        raise InputError(
            f"expected a path, bytes or an array, got {type(item).__name__}: {quoted(item)}"
        )
    return open_regular(item)


def _checked(samples: NDArray[np.generic]) -> Samples:
    if samples.dtype.kind != "f":
        raise InputError(f"expected float samples in [-1, 1], got {samples.dtype}")
    if samples.ndim not in (1, 2) or 0 in samples.shape:
        raise InputError(f"expected [samples] or [samples, channels], got {list(samples.shape)}")
    if samples.ndim > 1 and samples.shape[1] > MAX_CHANNELS:
        raise InputError(f"{samples.shape[1]} channels; the axes are [samples, channels]")
    return _finite(samples.astype(np.float32))


def _finite(samples: Samples) -> Samples:
    if not np.isfinite(samples).all():
        raise InputError("it holds samples that are not numbers")
    return samples


def _mono(samples: Samples) -> Samples:
    mixed: Samples = samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)
    return mixed


def _normalized(waveform: Samples) -> Samples:
    """Zero mean and unit variance."""
    scaled: Samples = (waveform - waveform.mean()) / np.sqrt(waveform.var() + VARIANCE_GUARD)
    return scaled.astype(np.float32)


def _line(error: Exception) -> str:
    # Without the name of the file, which need not have one.
    text = getattr(error, "error_string", "") or str(error)
    return " ".join(text.split()) or type(error).__name__
