"""Audio models: one tower, from a transformers audio backbone and its feature extractor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from fmrt.bundle.bundle import Reference
from fmrt.bundle.manifest import AudioInput, Tower, Variant
from fmrt.errors import OptionError
from fmrt.export.audio.feature_extractor import (
    MASK,
    FeatureExtractor,
    batch_of,
    load_extractor,
)
from fmrt.export.choices import Choice, Overrides, normalize_choice
from fmrt.export.loading.backbone import given_or_loaded
from fmrt.export.loading.checkpoint import check_missing
from fmrt.export.loading.fetching import Origin
from fmrt.export.part import Loaded, OtherTower, TowerModel, TowerPart, features
from fmrt.export.quiet import quiet
from fmrt.export.untouched import check_original, load_original
from fmrt.export.writing.configuration import write_config
from fmrt.preprocess.audio import decode
from fmrt.preprocess.spectrogram import FEATURES_FILE

OUTPUTS = ("last_hidden_state", "audio_embeds")
POOLINGS = ("mean", "pooler")
BATCH = 2
# The number of axes of [batch, frames, hidden].
SEQUENCE_AXES = 3
# Methods that give the mask of the output's frames; transformers has no public name for them.
OUTPUT_MASKS = ("_get_output_attention_mask", "_get_feature_vector_attention_mask")
# Most difference, as a fraction of the largest component, that is float32 rounding alone.
UNHEARD = 1e-4
MOST_NEEDED = 64  # frames, tried one by one


class AudioEmbedding(torch.nn.Module):
    """A model's main input to ``last_hidden_state`` and ``audio_embeds``.

    Args:
        backbone: A transformers audio encoder.
        main: The name of the backbone's main input.
        pooling: The pooling: ``mean`` over frames, or ``pooler`` for the model's own.
        unit: Whether to end in L2 normalization.

    Attributes:
        masked: Whether the backbone takes sounds of different lengths, filled with zeros, and the
            mask of their samples or frames.
    """

    masked = False

    def __init__(
        self,
        backbone: torch.nn.Module,
        main: str,
        pooling: str,
        unit: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.main = main
        self.pooling = pooling
        self.unit = unit

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: The main input, float32 ``[batch, ...]``; for models that fill a fixed length
                with silence also ``attention_mask``, int64 ``[batch, frames]``, which only the mean
                reads, as such models are trained to see the silence; for masked ones
                ``attention_mask``, int64 ``[batch, samples or frames]``.
        """
        output = self.backbone(**(inputs if self.masked else {self.main: inputs[self.main]}))
        return self.after(output, inputs)

    def after(self, output: ModelOutput, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs, of what the backbone gave for some inputs."""
        hidden = output.last_hidden_state
        if self.pooling == "pooler":
            projected = output.get("audio_embeds")
            vectors = output.pooler_output if projected is None else projected
        elif MASK in inputs:
            weights = self._frames(inputs[MASK], hidden)[:, :, None].to(hidden.dtype)
            vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        else:
            vectors = hidden.mean(1)
        if hidden.ndim > SEQUENCE_AXES:  # feature maps: [batch, channels, ...]
            hidden = hidden.flatten(2).transpose(1, 2)
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {OUTPUTS[0]: hidden, OUTPUTS[1]: vectors}

    def _frames(self, mask: Tensor, hidden: Tensor) -> Tensor:
        """The mask of the frames of ``last_hidden_state``."""
        if self.masked:
            if hasattr(self.backbone, OUTPUT_MASKS[0]):
                return self.backbone._get_output_attention_mask(mask, hidden.shape[1])
            return self.backbone._get_feature_vector_attention_mask(hidden.shape[1], mask)
        # The encoder's convolutions halve the frames.
        return mask[:, :: mask.shape[1] // hidden.shape[1]]


@dataclass(frozen=True)
class AudioSource:
    """A loaded audio model with its feature extractor."""

    module: AudioEmbedding
    extractor: FeatureExtractor
    spec: AudioInput

    @property
    def files(self) -> tuple[str, ...]:
        """Those that the runtime reads."""
        return () if self.spec.spectrogram is None else (FEATURES_FILE,)

    def write_configuration(self, directory: Path) -> None:
        """Write the feature extractor's files, and compare the runtime's features with its own.

        Raises:
            ExportError: The features differ.
        """
        self.extractor.extractor.save_pretrained(str(directory))
        self.extractor.write_arrays(directory)
        self.extractor.check(self.spec, directory, self.extractor.sounds())


def load_audio(
    origin: Origin,
    device: str,
    overrides: Overrides,
    given: torch.nn.Module | None = None,
    *,
    masked: bool = True,
) -> Loaded:
    """Load a transformers audio model.

    Args:
        origin: The origin of the model, with its directory.
        device: The torch device.
        overrides: What the user asked for.
        given: A module in place of weights that are not in the directory.
        masked: Whether the model may be given a mask of padding.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    extractor = FeatureExtractor(origin.path)
    trust = overrides.trust_remote_code
    model, missing = given_or_loaded(given, origin.path, device, trust=trust)
    model_type = model.config.model_type
    whole = given is None and model.config.is_encoder_decoder
    backbone = model.get_encoder() if whole else model
    pooling = _choose_pooling(extractor, model_type, overrides.pooling)
    check_missing([key for key in missing if not key.startswith("decoder.")], model, origin.name)
    if overrides.max_length is not None and extractor.spec(1, None).fixed:
        raise OptionError("--max-length: this model's sounds have one length, its own")
    spec = extractor.spec(_min_samples(model), overrides.max_length)
    unit = bool(overrides.normalize)
    module = AudioEmbedding(backbone, extractor.input_name, pooling.value, unit).eval()
    spec = _with_least(module, extractor, spec)
    module.masked = masked and not spec.fixed and _padding_is_left_out(module, extractor, spec)
    spec = dataclasses.replace(spec, masked=module.masked)
    source = AudioSource(module, extractor, spec)
    if given is None:
        _check(source, origin.path, _original(origin.path, device, overrides))
    return Loaded(
        origin=origin,
        backbone=model,
        model_type=model_type,
        choices=(
            pooling,
            normalize_choice(overrides.normalize),
            _length_choice(spec, overrides),
            _batch_choice(spec, model_type),
            Choice("feature extractor", extractor.kind, "preprocessor_config.json"),
        ),
        parts=partial(_parts, source),
        write_configuration=partial(_write_configuration, source),
        files=source.files,
    )


def _original(path: Path, device: str, overrides: Overrides) -> Callable[..., ModelOutput]:
    """The encoder as transformers alone loads it."""
    original = load_original(path, device, overrides.trust_remote_code)
    encoder: Callable[..., ModelOutput] = (
        original.get_encoder() if original.config.is_encoder_decoder else original
    )
    return encoder


def _check(source: AudioSource, path: Path, original: Callable[..., ModelOutput]) -> None:
    """Compare with what users get.

    Raises:
        ExportError: The vectors differ.
    """
    module, spec, extractor = source.module, source.spec, load_extractor(path)

    def ours(data: bytes) -> Tensor:
        vectors: Tensor = module(**_inputs(source, data))[OUTPUTS[1]][0]
        return vectors

    def theirs(data: bytes) -> Tensor:
        waveform = decode(data, spec.sampling_rate, spec.max_samples).samples
        batch = {
            name: torch.as_tensor(values).to(module.backbone.device)
            for name, values in batch_of(extractor, waveform, masked=bool(spec.hop_length)).items()
            if name == spec.input_name or (name == MASK and spec.spectrogram is not None)
        }
        if spec.hop_length:  # silence fills the sound, and the encoder halves the frames
            batch[MASK], given = batch[MASK][:, ::2], {spec.input_name: batch[spec.input_name]}
        else:
            given = batch
        return _as_users_pool(original(**given), batch, module.pooling)[0]

    check_original("audio", source.extractor.sounds(), ours, theirs, unit=module.unit)


def _as_users_pool(output: ModelOutput, batch: dict[str, Tensor], pooling: str) -> Tensor:
    """The pooled output, or the mean over frames that are no padding."""
    if pooling == "pooler":
        projected: Tensor | None = output.get("audio_embeds")
        return output.pooler_output if projected is None else projected
    hidden: Tensor = output.last_hidden_state
    mask = output.get("attention_mask")
    mask = batch.get(MASK) if mask is None else mask
    if mask is None or mask.shape[1] != hidden.shape[1]:
        return hidden.mean(1)
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def _choose_pooling(extractor: FeatureExtractor, model_type: str, asked: str | None) -> Choice:
    own = extractor.kind in ("ASTFeatureExtractor", "ClapFeatureExtractor")
    if asked is not None:
        if asked not in POOLINGS or (asked == "pooler" and not own):
            known = POOLINGS if own else POOLINGS[:1]
            raise OptionError(f"pooling {asked!r}; for this model choose from: {', '.join(known)}")
        return Choice("pooling", asked, "asked for")
    if own:
        return Choice("pooling", "pooler", f"{model_type}'s own pooled output; --pooling overrides")
    return Choice("pooling", "mean", f"{model_type} has no pooled output of its own")


def _length_choice(spec: AudioInput, overrides: Overrides) -> Choice:
    seconds = f"{spec.max_samples / spec.sampling_rate:g} s"
    if spec.fixed:
        return Choice("max length", seconds, "preprocessor_config.json")
    asked = overrides.max_length is not None
    return Choice(
        "max length", seconds, "asked for" if asked else "the model does not say; --max-length"
    )


def _batch_choice(spec: AudioInput, model_type: str) -> Choice:
    if spec.fixed:
        return Choice("batches", "of any sounds", "preprocessor_config.json")
    if spec.masked:
        return Choice("batches", "of sounds of any lengths", f"{model_type} masks padding, tried")
    return Choice("batches", "of sounds of one length", f"{model_type} would hear padding, tried")


def _padding_is_left_out(
    module: AudioEmbedding, extractor: FeatureExtractor, spec: AudioInput
) -> bool:
    """Whether a sound has the vector that it has alone in a batch with a longer one, masked.

    Models that normalize a feature over the time of all samples do not, nor those without a mask.
    """
    backbone = module.backbone
    if not any(hasattr(backbone, name) for name in OUTPUT_MASKS):
        return False
    longest = max(8 * spec.min_samples, spec.sampling_rate)
    sounds = [_noise(extractor, n).to(backbone.device) for n in (longest, 5 * longest // 8 + 1)]
    lengths = torch.tensor([len(sound) for sound in sounds], device=backbone.device)
    filled = pad_sequence(sounds, batch_first=True)
    mask = torch.arange(filled.shape[1], device=backbone.device) < lengths[:, None]
    with torch.no_grad(), quiet():
        alone = module(**{spec.input_name: sounds[1][None]})[OUTPUTS[1]][0]
        module.masked = True
        try:
            batch = {spec.input_name: filled, MASK: mask.to(torch.int64)}
            together = module(**batch)[OUTPUTS[1]][1]
        finally:
            module.masked = False
    return bool((together - alone).abs().max() <= UNHEARD * alone.abs().max())


def _noise(extractor: FeatureExtractor, samples: int) -> Tensor:
    """Model input of so many samples of noise, the same at the start of each."""
    drawn = np.random.default_rng(0).normal(0, 0.1, samples)
    return torch.from_numpy(extractor(drawn.astype(np.float32)))


def _with_least(
    module: AudioEmbedding, extractor: FeatureExtractor, spec: AudioInput
) -> AudioInput:
    """The input with the fewest samples that the model takes, where that is to be measured."""
    if spec.fixed or spec.spectrogram is None:
        return spec
    hop = int(spec.spectrogram["hop_length"])
    return dataclasses.replace(spec, min_samples=_least_samples(module, extractor, spec, hop))


def _least_samples(
    module: AudioEmbedding, extractor: FeatureExtractor, spec: AudioInput, hop: int
) -> int:
    """Fewest samples, in steps of whole frames, whose features a model takes."""
    for frames in range(MOST_NEEDED):
        samples = spec.min_samples + frames * hop
        features = _noise(extractor, samples)[None].to(module.backbone.device)
        with torch.no_grad(), quiet(), suppress(RuntimeError, ValueError):
            if torch.isfinite(module(**{spec.input_name: features})[OUTPUTS[1]]).all():
                return samples
    return spec.min_samples


def _min_samples(model: PreTrainedModel) -> int:
    """Fewest samples from which the convolutions of a waveform model make a frame."""
    kernels, strides = (getattr(model.config, f"conv_{n}", None) for n in ("kernel", "stride"))
    if not kernels or not strides:
        return 1
    needed = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        needed = (needed - 1) * stride + kernel
    return int(needed)


def _parts(source: AudioSource) -> Sequence[TowerPart]:
    return [audio_part(source, "model")]


def audio_part(source: AudioSource, stem: str) -> TowerPart:
    """The tower of a loaded audio model; ``stem`` names its graph's files."""
    spec, module = source.spec, source.module
    sounds = source.extractor.sounds()
    with torch.no_grad(), quiet():
        batches = [_inputs(source, data) for data in sounds]
        outputs = [module(**batch) for batch in batches]
    vectors = [output[OUTPUTS[1]][0].cpu().numpy() for output in outputs]
    positions = [output[OUTPUTS[0]].shape[1] for output in outputs]
    reference = Reference(list(sounds), [""] * len(sounds), np.array(positions), np.stack(vectors))
    names = (spec.input_name, *([MASK] if spec.hop_length or spec.masked else []))
    first = decode(sounds[0], spec.sampling_rate, spec.max_samples)
    seen = spec.max_samples if spec.fixed else first.length
    tower = Tower(
        modality="audio",
        inputs=names,
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling=module.pooling,
        normalize=module.unit,
        input=dataclasses.replace(spec, stride=max(1, seen // positions[0])),
    )
    # The first reference sound, twice: one length, and neither axis of size 1. Its frames of 20 ms
    # are odd in number: SEW halves and doubles them, and fills up what that loses.
    inputs = {name: batches[0][name].repeat_interleave(BATCH, 0) for name in names}
    varying = (0,) if spec.fixed else (0, 1)
    return TowerPart(
        tower=tower,
        stem=stem,
        module=module,
        inputs=inputs,
        axes=dict.fromkeys(names, varying),
        reference=reference,
    )


def other_tower(
    model: PreTrainedModel, path: Path, unit: bool, original: PreTrainedModel | None
) -> OtherTower:
    """The audio tower of a model that has one of texts too.

    Args:
        model: The model.
        path: The directory of the model.
        unit: Whether to end in L2 normalization.
        original: The model as users load it; None where it has no weights to compare with.
    """
    extractor = FeatureExtractor(path)
    backbone = TowerModel(model, "audio", model.config.audio_config)
    sounds = AudioEmbedding(backbone, extractor.input_name, "pooler", unit).eval()
    source = AudioSource(sounds, extractor, extractor.spec(1, None))
    if original is not None:
        _check(source, path, features(original, "audio"))
    part = partial(audio_part, source, "audio_model")
    return OtherTower(part, source.write_configuration, source.files)


def _inputs(source: AudioSource, data: bytes) -> dict[str, Tensor]:
    """Model inputs of one sound by Hugging Face's extractor."""
    spec = source.spec
    samples, length = decode(data, spec.sampling_rate, spec.max_samples)
    device = source.module.backbone.device
    inputs = {spec.input_name: torch.from_numpy(source.extractor(samples))[None].to(device)}
    if spec.hop_length:
        frames = torch.arange(spec.max_samples // spec.hop_length)
        filled = -(-length // spec.hop_length)
        inputs[MASK] = (frames < filled).to(torch.int64)[None].to(device)
    if spec.masked:
        shape = inputs[spec.input_name].shape[:2]
        inputs[MASK] = torch.ones(shape, dtype=torch.int64, device=device)
    return inputs


def _write_configuration(source: AudioSource, directory: Path, variants: Sequence[Variant]) -> None:
    write_config(source.module.backbone, directory, variants)
    source.write_configuration(directory)
