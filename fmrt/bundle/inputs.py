"""How raw items become a model's inputs, as a manifest says it: by modality, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Literal

from fmrt.bundle.typed import (
    Contradictions,
    Count,
    OneOf,
    Printable,
    Range,
    WrongValueError,
    decode,
)
from fmrt.errors import quoted

# Bounds of what a manifest may say, far above what models do, so that a wrong one costs no memory.
MOST_PIXELS = 1 << 23
MOST_SIDE = 1 << 14
MOST_TOKENS = 1 << 24
MOST_PADDED = 8192
MOST_SAMPLES = 1 << 31
# Samples of every sound times the frames that each is in.
MOST_FIXED = 1 << 23
MOST_OVERLAP = 16
# Pixels that a padded image may have for each position: a batch holds so many positions.
MOST_PATCH = 1 << 14

Side = Annotated[int, Range(1, MOST_SIDE)]
Samples = Annotated[int, Range(1, MOST_SAMPLES)]
Name = Annotated[str, Printable()]
Factor = Annotated[float, Range(-1e9, 1e9)]
Guard = Annotated[float, Range(0, 1e9)]


@dataclass(frozen=True)
class TextInput:
    """How texts become model inputs.

    Attributes:
        max_length: The largest number of tokens of a text, special tokens included.
        pad_token_id: The id that fills ``input_ids`` after a text's last token.
        truncation_side: The end that loses tokens when a text is too long.
        prompts: The texts that go before an item, by name.
        default_prompt_name: The prompt of ``embed`` without a prompt argument.
        include_prompt: Whether pooling takes the prompt's tokens in.
        pad_to_max_length: Whether every text is padded to ``max_length``, the padding seen as text.
        padded: Whether texts of different lengths may share a batch, the shorter ones padded.
        vocab_size: The number that all token ids that the model knows are below; None in bundles of
            older versions.
    """

    max_length: Annotated[int, Range(1, MOST_TOKENS)]
    pad_token_id: Annotated[int, Range(0, 2**31 - 1)]
    truncation_side: Annotated[str, OneOf(("left", "right"))] = "right"
    prompts: Mapping[Name, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    include_prompt: bool = True
    pad_to_max_length: bool = False
    padded: bool = True
    vocab_size: Annotated[int, Range(1, 2**31 - 1)] | None = None

    @property
    def main(self) -> str:
        """Name of the graph's main input."""
        return "input_ids"

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            names = ", ".join(map(repr, self.prompts)) or "none"
            name = quoted(self.default_prompt_name)
            yield "default_prompt_name", f"is {name}; the prompts are: {names}"
        if self.pad_to_max_length and self.max_length > MOST_PADDED:
            yield (
                "max_length",
                f"is {self.max_length:,}; texts are padded to at most {MOST_PADDED:,} tokens",
            )


@dataclass(frozen=True)
class ImageInput:
    """How images become ``pixel_values``: resize, crop, rescale, normalize, in this order.

    Attributes:
        height, width: The size of ``pixel_values``, in pixels.
        tokens: The positions that the model computes per image, for the scheduler.
        resize: The size ``[height, width]``, or one number for the shorter edge; None leaves the
            size.
        resample: Pillow's number of the resampling filter.
        resize_float: Whether pixels are resized as floats, so that they are not rounded again.
        crop: The size ``[height, width]`` that is cut from the middle, with zeros where the image
            is smaller; or None.
        scale: The factor of each channel, ``1 / (255 std)`` for most models.
        shift: The number that is added after that, ``-mean / std`` for most models.
        longest_edge: The image's longest edge after the resize, for models that pad instead of
            ``resize``: zeros then fill ``pixel_values`` to the right and below, after the
            normalization.
        crop_half_even: Whether half a pixel in the crop's place is rounded to even, not down.
    """

    height: Side
    width: Side
    tokens: Annotated[int, Range(1, MOST_TOKENS)]
    resize: Annotated[tuple[Side, ...], Count(1, 2)] | None
    resample: Annotated[int, Range(0, 5)]
    resize_float: bool
    crop: tuple[Side, Side] | None
    scale: Annotated[tuple[Factor, ...], Count(3, 3)]
    shift: Annotated[tuple[Factor, ...], Count(3, 3)]
    longest_edge: Side | None = None
    crop_half_even: bool = False

    @property
    def main(self) -> str:
        """Name of the graph's main input."""
        return "pixel_values"

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        size = (self.height, self.width)
        for name, sides in (("height", size), ("resize", self.resize), ("crop", self.crop)):
            if sides is not None and prod(sides) > MOST_PIXELS:
                yield name, f"makes {prod(sides):,} pixels; an image has at most {MOST_PIXELS:,}"
        if 0 in self.scale:
            yield "scale", f"is {list(self.scale)}; a channel times 0 says nothing"
        if self.longest_edge is not None:
            yield from self._of_padded(self.longest_edge)
            return
        # One number leaves the other side open, and None both.
        final = self.crop or self.resize
        if final is not None and len(final) > 1 and tuple(final) != size:
            name = "resize" if self.crop is None else "crop"
            yield name, f"is {list(final)}, and the model's height and width are {list(size)}"

    def _of_padded(self, longest: int) -> Contradictions:
        if longest > min(self.height, self.width):
            yield "longest_edge", f"is {longest}, more than the model's height or width"
        if self.crop is not None:
            yield "crop", f"is {list(self.crop)}, and an image with a longest_edge is padded"
        if self.height * self.width > self.tokens * MOST_PATCH:
            yield "tokens", f"is {self.tokens}, too few for {self.height} x {self.width} pixels"


@dataclass(frozen=True)
class BandsSpec:
    """How the bands of a spectrogram are normalized over the time of a sound.

    Attributes:
        mean, variance: Whether each is done.
        freedom: The number that is taken off the number of frames in the variance.
        variance_guard, deviation_guard: The number that is added to each. A band that never
            changes, with no guard, becomes zero.
    """

    mean: bool
    variance: bool
    freedom: Annotated[int, Range(0, 1)]
    variance_guard: Guard
    deviation_guard: Guard


@dataclass(frozen=True)
class SpectrogramSpec:
    """A log-mel spectrogram in numbers, see `fmrt.preprocess.spectrogram.Spectrogram`.

    Attributes:
        fft_length, hop_length: The lengths, in samples.
        center: Whether frames are centred on their time, with the ends continued by ``edges``.
        remove_dc_offset, preemphasis: The steps on each frame, as in Kaldi.
        mel_floor: The least power of a band.
        logarithm: The logarithm: ``log``, ``log10``, or ``dB``: decibels of a power against 1.
        fill: The way to make a short sound long: ``zeros`` or ``repeat`` before the transform,
            ``frames`` of zeros after it, or ``none``: a sound has the frames that it has.
        frames: The number of frames of every result; None without ``fill``.
        dynamic_range: The largest distance below the loudest value, or None.
        shift, scale: The numbers of ``(values + shift) * scale`` at the end.
        axes: The order of the result's axes, from ``[frames, mels]``.
        gain: The factor of the waveform, before anything else.
        wave_preemphasis: The preemphasis of the waveform, whose first sample stays as it is.
        edges: The way to continue the ends: ``reflect``, or ``constant`` zeros.
        whole_hops: Whether a last frame after the last whole hop is left out.
        mel_guard: The number that is added to a band's power.
        bands: The way that each band is normalized over the time of the sound, or None.
        stack: The number of frames joined into one; what is left over is left out.
    """

    fft_length: Annotated[int, Range(2, 1 << 16)]
    hop_length: Annotated[int, Range(1, 1 << 16)]
    center: bool
    remove_dc_offset: bool
    preemphasis: Factor
    mel_floor: Guard
    logarithm: Literal["log", "log10", "dB"]
    fill: Literal["zeros", "repeat", "frames", "none"]
    frames: Annotated[int, Range(1, 1 << 16)] | None
    dynamic_range: Guard | None
    shift: Factor
    scale: Factor
    axes: Literal["time_mel", "mel_time", "channel_time_mel"]
    gain: Factor = 1.0
    wave_preemphasis: Factor = 0.0
    edges: Literal["reflect", "constant"] = "reflect"
    whole_hops: bool = False
    mel_guard: Guard = 0.0
    bands: BandsSpec | None = None
    stack: Annotated[int, Range(1, 64)] = 1

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        if (self.fill == "none") != (self.frames is None):
            yield "frames", f"is {self.frames}, and fill is {self.fill!r}"
        if self.whole_hops and self.fill != "none":
            yield "whole_hops", f"is true, and fill is {self.fill!r}"
        if self.fft_length > MOST_OVERLAP * self.hop_length:
            yield "hop_length", f"is {self.hop_length}, too few for fft_length {self.fft_length:,}"
        if not self.scale:
            yield "scale", "is 0, and all features would be"


@dataclass(frozen=True)
class AudioInput:
    """How sounds become model inputs.

    Attributes:
        sampling_rate: The samples per second.
        input_name: The name of the graph's main input.
        min_samples: The smallest number of samples; shorter sounds give the model nothing to
            compute.
        max_samples: The largest number of samples; longer sounds are cut.
        fixed: Whether every sound is brought to ``max_samples``.
        normalize: Whether a waveform is brought to zero mean and unit variance.
        hop_length: The number of samples between the frames of ``attention_mask``; 0 for models
            without one.
        spectrogram: The parameters of `fmrt.preprocess.spectrogram.Spectrogram`, or None for models
            that take the waveform.
        masked: Whether sounds of different lengths may share a batch, filled with zeros, which
            ``attention_mask`` of their samples or frames leaves out.
        stride: The samples per position that the model computes, for the scheduler.
    """

    sampling_rate: Annotated[int, Range(1000, 768_000)]
    input_name: Name
    min_samples: Samples
    max_samples: Samples
    fixed: bool
    normalize: bool
    hop_length: Annotated[int, Range(0, 1 << 16)]
    spectrogram: Mapping[str, Any] | None
    masked: bool = False
    stride: Annotated[int, Range(1, 1 << 16)] = 1

    @property
    def main(self) -> str:
        """Name of the graph's main input."""
        return self.input_name

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        if self.min_samples > self.max_samples:
            yield "min_samples", f"is {self.min_samples:,}, and max_samples {self.max_samples:,}"
        if self.spectrogram is not None:
            try:
                yield from self._of_features(decode(SpectrogramSpec, self.spectrogram))
            except WrongValueError as e:
                yield f"spectrogram.{e.where}", e.reason
        elif self.fixed:
            yield "fixed", "is true, and there is no spectrogram that would fill a sound"

    def _of_features(self, spec: SpectrogramSpec) -> Contradictions:
        filled = spec.fill != "none"
        if self.fixed != filled:
            yield "fixed", f"is {self.fixed}, and spectrogram.fill {spec.fill!r}"
        if self.masked and (filled or spec.axes != "time_mel"):
            yield "masked", f"is true, and spectrogram.axes {spec.axes!r}, fill {spec.fill!r}"
        overlap = -(-spec.fft_length // spec.hop_length)
        if filled and self.max_samples * overlap > MOST_FIXED:
            yield "max_samples", f"is {self.max_samples:,}, too many to fill every sound to"


INPUTS: dict[str, type[TextInput | ImageInput | AudioInput]] = {
    "text": TextInput,
    "image": ImageInput,
    "audio": AudioInput,
}
