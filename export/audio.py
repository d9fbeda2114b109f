"""Audio models: one tower, from a transformers audio backbone and its feature extractor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from export.backbone import load_backbone
from export.feature_extractor import FeatureExtractor, reference_sounds
from export.layout import write_config
from export.part import Loaded, Part
from export.quiet import quiet
from export.source import Choice, Overrides, check_missing
from fmrt.bundle import Reference
from fmrt.errors import OptionError
from fmrt.manifest import AudioInput, Tower, Variant
from fmrt.preprocess.audio import decode
from fmrt.preprocess.spectrogram import FEATURES_FILE

OUTPUTS = ("last_hidden_state", "audio_embeds")
MASK = "attention_mask"
POOLINGS = ("mean", "pooler")
BATCH = 2
# Most difference, as a fraction of the largest component, that is float32 rounding alone.
UNHEARD = 1e-4


class AudioEmbedding(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """A model's main input to ``last_hidden_state`` and ``audio_embeds``.

    Args:
        backbone: a transformers audio encoder.
        main: name of its main input.
        pooling: ``mean`` over frames, or ``pooler`` for the model's own.
        unit: whether to end in L2 normalization.

    Attributes:
        masked: whether the backbone takes waveforms of different lengths, filled with zeros, and
            the mask of their samples.
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
            inputs: the main input, float32 ``[batch, ...]``; for models that fill a fixed length
                with silence also ``attention_mask``, int64 ``[batch, frames]``, which only the mean
                reads, as such models are trained to see the silence; for masked ones
                ``attention_mask``, int64 ``[batch, samples]``.
        """
        output = self.backbone(**(inputs if self.masked else {self.main: inputs[self.main]}))
        hidden = output.last_hidden_state
        if self.pooling == "pooler":
            projected = output.get("audio_embeds")
            vectors = output.pooler_output if projected is None else projected
        elif MASK in inputs:
            weights = self._frames(inputs[MASK], hidden)[:, :, None].to(hidden.dtype)
            vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        else:
            vectors = hidden.mean(1)
        if hidden.ndim > 3:  # noqa: PLR2004  # feature maps: [batch, channels, ...]
            hidden = hidden.flatten(2).transpose(1, 2)
        if self.unit:
            vectors = normalize(vectors, dim=-1)
        return {OUTPUTS[0]: hidden, OUTPUTS[1]: vectors}

    def _frames(self, mask: Tensor, hidden: Tensor) -> Tensor:
        """The mask of the frames of ``last_hidden_state``."""
        if self.masked:
            # transformers has no public name for it.
            return self.backbone._get_feature_vector_attention_mask(hidden.shape[1], mask)
        # The encoder's convolutions halve the frames.
        return mask[:, :: mask.shape[1] // hidden.shape[1]]


@dataclass(frozen=True)
class AudioSource:
    """A loaded audio model with its feature extractor."""

    module: AudioEmbedding
    extractor: FeatureExtractor
    spec: AudioInput

    def write_configuration(self, directory: Path) -> None:
        """Write the feature extractor's files, and compare the runtime's features with its own.

        Raises:
            ExportError: they differ.
        """
        self.extractor.extractor.save_pretrained(str(directory))
        self.extractor.write_arrays(directory)
        self.extractor.check(self.spec, directory, reference_sounds())


def load_audio(
    name: str, path: Path, revision: str | None, device: str, overrides: Overrides
) -> Loaded:
    """Load a transformers audio model.

    Raises:
        ExportError: it cannot be exported, with the reason.
        OptionError: an override that makes no sense for this model.
    """
    extractor = FeatureExtractor(path)
    model, missing = load_backbone(path, device)
    model_type = model.config.model_type
    backbone = model.get_encoder() if model.config.is_encoder_decoder else model
    pooling = _choose_pooling(extractor, model_type, overrides.pooling)
    check_missing([key for key in missing if not key.startswith("decoder.")], model, name)
    if overrides.max_length is not None and extractor.spec(1, None).fixed:
        raise OptionError("--max-length: this model's sounds have one length, its own")
    spec = extractor.spec(_min_samples(model), overrides.max_length)
    unit = bool(overrides.normalize)
    unsaid = "the model does not say; --normalize adds it"
    module = AudioEmbedding(backbone, extractor.input_name, pooling.value, unit).eval()
    module.masked = not spec.fixed and _padding_is_left_out(module, spec)
    spec = dataclasses.replace(spec, masked=module.masked)
    source = AudioSource(module, extractor, spec)
    return Loaded(
        name,
        path,
        revision,
        model,
        model_type,
        (),
        (
            pooling,
            Choice(
                "normalize",
                "yes" if unit else "no",
                unsaid if overrides.normalize is None else "asked for",
            ),
            _length_choice(spec, overrides),
            _batch_choice(spec, model_type),
            Choice("feature extractor", extractor.kind, "preprocessor_config.json"),
        ),
        partial(_parts, source),
        partial(_write_configuration, source),
        () if spec.spectrogram is None else (FEATURES_FILE,),
    )


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


def _padding_is_left_out(module: AudioEmbedding, spec: AudioInput) -> bool:
    """Whether a sound has the vector that it has alone in a batch with a longer one, masked.

    Models that normalize a feature over the time of all samples do not, nor those without a mask.
    """
    backbone = module.backbone
    if not hasattr(backbone, "_get_feature_vector_attention_mask"):
        return False
    lengths = [8 * spec.min_samples, 5 * spec.min_samples + 1]
    samples = torch.randn(2, lengths[0], generator=torch.Generator().manual_seed(0))
    samples[1, lengths[1] :] = 0
    mask = (torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]).to(torch.int64)
    batch = {spec.input_name: samples.to(backbone.device), MASK: mask.to(backbone.device)}
    single = {spec.input_name: batch[spec.input_name][1:, : lengths[1]]}
    with torch.no_grad(), quiet():
        alone = module(**single)[OUTPUTS[1]][0]
        module.masked = True
        try:
            together = module(**batch)[OUTPUTS[1]][1]
        finally:
            module.masked = False
    return bool((together - alone).abs().max() <= UNHEARD * alone.abs().max())


def _min_samples(model: Any) -> int:  # noqa: ANN401
    """Fewest samples from which the convolutions of a waveform model make a frame."""
    kernels, strides = (getattr(model.config, f"conv_{n}", None) for n in ("kernel", "stride"))
    if not kernels or not strides:
        return 1
    needed = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        needed = (needed - 1) * stride + kernel
    return int(needed)


def _parts(source: AudioSource) -> Sequence[Part]:
    return [audio_part(source, "model")]


def audio_part(source: AudioSource, stem: str) -> Part:
    """The tower of a loaded audio model; ``stem`` names its graph's files."""
    spec, module = source.spec, source.module
    sounds = reference_sounds()
    with torch.no_grad(), quiet():
        batches = [_inputs(source, data) for data in sounds]
        outputs = [module(**batch) for batch in batches]
    vectors = [output[OUTPUTS[1]][0].cpu().numpy() for output in outputs]
    positions = [output[OUTPUTS[0]].shape[1] for output in outputs]
    reference = Reference(list(sounds), [""] * len(sounds), np.array(positions), np.stack(vectors))
    names = (spec.input_name, *([MASK] if spec.hop_length or spec.masked else []))
    seen = spec.max_samples if spec.fixed else batches[0][spec.input_name].shape[1]
    tower = Tower(
        modality="audio",
        inputs=names,
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling=module.pooling,
        normalize=module.unit,
        input=dataclasses.replace(spec, stride=max(1, seen // positions[0])),
    )
    # The second reference sound, twice: one length, and neither axis of size 1.
    inputs = {name: batches[1][name].repeat_interleave(BATCH, 0) for name in names}
    varying = (0,) if spec.fixed else (0, 1)
    return Part(tower, stem, module, inputs, dict.fromkeys(names, varying), reference)


def _inputs(source: AudioSource, data: bytes) -> dict[str, Tensor]:
    """Model inputs of one sound by Hugging Face's extractor."""
    spec = source.spec
    waveform = decode(data, spec.sampling_rate, spec.max_samples)
    cut = waveform[: spec.max_samples]
    device = source.module.backbone.device
    inputs = {spec.input_name: torch.from_numpy(source.extractor(cut))[None].to(device)}
    if spec.hop_length:
        frames = torch.arange(spec.max_samples // spec.hop_length)
        filled = -(-len(waveform) // spec.hop_length)
        inputs[MASK] = (frames < filled).to(torch.int64)[None].to(device)
    if spec.masked:
        inputs[MASK] = torch.ones_like(inputs[spec.input_name], dtype=torch.int64)
    return inputs


def _write_configuration(source: AudioSource, directory: Path, variants: Sequence[Variant]) -> None:
    write_config(source.module.backbone, directory, variants)
    source.write_configuration(directory)
