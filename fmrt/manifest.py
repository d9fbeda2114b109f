"""The manifest of a bundle, ``fmrt.json``: its types, and reading and writing them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmrt.errors import BundleCorruptError, BundleNotFoundError, OptionError, SchemaVersionError

SCHEMA_VERSION = 1
MANIFEST_FILE = "fmrt.json"
REFERENCE_FILE = "reference.safetensors"


@dataclass(frozen=True)
class FileRecord:
    """Content of a file at export: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Parity:
    """Distance of a variant's vectors from PyTorch's, over the reference items.

    Attributes:
        max_abs_error: largest absolute difference of a component.
        mean_cosine: mean cosine similarity.
        min_cosine: worst cosine similarity.
    """

    max_abs_error: float
    mean_cosine: float
    min_cosine: float


@dataclass(frozen=True)
class Quality:
    """What a quantized variant is worth, measured where it was made.

    Attributes:
        items: held-out items, which no choice was made on.
        mean_cosine: of their vectors with the fp32 variant's.
        min_cosine: of the worst of them.
        kept: matrix products that were left in higher precision to get there.
        products: all matrix products with constant weights.
        speed: items a second as a multiple of the fp32 variant's, on ``cpu``; None where it could
            not be run on its own provider.
        cpu: name of the processor.
    """

    items: int
    mean_cosine: float
    min_cosine: float
    kept: int
    products: int
    speed: float | None
    cpu: str


@dataclass(frozen=True)
class Variant:
    """One graph of the bundle.

    Attributes:
        name: what ``variant=`` and ``--variant`` take, e.g. ``fp32``.
        file: path below the bundle, with ``/``.
        provider: ``any`` for a portable graph, else the only provider it runs on (``cpu``).
        precision: of the weights and arithmetic, e.g. ``fp32``.
        sha256: of the file, in hex.
        size: of the file, in bytes.
        parity: as measured, or None when that could not be done yet.
        checked_on: provider that the parity was measured on; a graph for CUDA runs on the CPU too,
            with the GPU's operators but not its rounding.
        modality: of the tower that the graph is of.
        external: files with the graph's weights, by path, when they are not in the graph's own.
        quality: of a quantized variant.
        padded: whether items of different lengths may share a batch, padded. Rounding to 8 bits
            makes a whole step of the last bit that padding changes in attention.
        packed: whether the graph takes the padding out of a batch, and so computes tensors of
            another size for every batch.
    """

    name: str
    file: str
    provider: str
    precision: str
    sha256: str
    size: int
    modality: str = "text"
    parity: Parity | None = None
    checked_on: str | None = None
    external: Mapping[str, FileRecord] = field(default_factory=dict)
    quality: Quality | None = None
    padded: bool = True
    packed: bool = False


@dataclass(frozen=True)
class Adapter:
    """An adapter that was merged into the weights.

    Attributes:
        model: hub id, or name of a local directory.
        revision: commit of a hub adapter, if known.
        weight: what its change of the weights was multiplied by.
        weights_sha256: as of `Source`.
    """

    model: str
    revision: str | None
    weight: float
    weights_sha256: str


@dataclass(frozen=True)
class Source:
    """Where the weights came from.

    Attributes:
        model: hub id, or name of a local directory.
        revision: commit of a hub model, if known.
        weights_sha256: SHA-256 in hex over the weight files in name order.
        adapters: merged into them.
        remote_code: whether Python files of the model's directory were allowed to run at export.
    """

    model: str
    revision: str | None
    weights_sha256: str
    adapters: tuple[Adapter, ...] = ()
    remote_code: bool = False


@dataclass(frozen=True)
class TextInput:
    """How texts become model inputs.

    Attributes:
        max_length: most tokens of a text, special tokens included.
        pad_token_id: fills ``input_ids`` behind a text's last token.
        truncation_side: the end that loses tokens when a text is too long.
        prompts: texts that go in front of an item, by name.
        default_prompt_name: the prompt of ``embed`` without a prompt argument.
        include_prompt: False when pooling leaves the prompt's tokens out.
        pad_to_max_length: whether every text is padded to ``max_length``, the padding seen as text.
        padded: whether texts of different lengths may share a batch, the shorter ones padded.
        vocab_size: token ids that the model knows are below; None in bundles of older versions.
    """

    max_length: int
    pad_token_id: int
    truncation_side: str = "right"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    include_prompt: bool = True
    pad_to_max_length: bool = False
    padded: bool = True
    vocab_size: int | None = None


@dataclass(frozen=True)
class ImageInput:
    """How images become ``pixel_values``: resize, crop, rescale, normalize, in this order.

    Attributes:
        height, width: of ``pixel_values``, in pixels.
        tokens: positions that the model computes an image, for the scheduler.
        resize: ``[height, width]``, or one number for the shorter edge; None leaves the size.
        resample: Pillow's number of the resampling filter.
        resize_float: whether pixels are resized as floats, so that they are not rounded again.
        crop: ``[height, width]`` cut from the middle, zeros where the image is smaller; or None.
        scale: of each channel, ``1 / (255 std)`` for most models.
        shift: added behind, ``-mean / std`` for most models.
        longest_edge: of the image after the resize, in place of ``resize``, for models that pad:
            zeros then fill ``pixel_values`` to the right and below, behind the normalization.
        crop_half_even: whether half a pixel in the crop's place is rounded to even, not down.
    """

    height: int
    width: int
    tokens: int
    resize: tuple[int, ...] | None
    resample: int
    resize_float: bool
    crop: tuple[int, int] | None
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    longest_edge: int | None = None
    crop_half_even: bool = False


@dataclass(frozen=True)
class AudioInput:
    """How sounds become model inputs.

    Attributes:
        sampling_rate: samples a second.
        input_name: of the graph's main input.
        min_samples: shorter sounds give the model nothing to compute.
        max_samples: longer sounds are cut.
        fixed: whether every sound is brought to ``max_samples``.
        normalize: whether a waveform is brought to zero mean and unit variance.
        hop_length: samples between the frames of ``attention_mask``; 0 for models without one.
        spectrogram: parameters of `fmrt.preprocess.spectrogram.Spectrogram`, or None for models
            that take the waveform.
        masked: whether sounds of different lengths may share a batch, filled with zeros, which
            ``attention_mask`` of their samples or frames leaves out.
        stride: samples behind a position that the model computes, for the scheduler.
    """

    sampling_rate: int
    input_name: str
    min_samples: int
    max_samples: int
    fixed: bool
    normalize: bool
    hop_length: int
    spectrogram: Mapping[str, Any] | None
    masked: bool = False
    stride: int = 1


INPUTS: dict[str, type[TextInput | ImageInput | AudioInput]] = {
    "text": TextInput,
    "image": ImageInput,
    "audio": AudioInput,
}


@dataclass(frozen=True)
class Tower:
    """One encoder of a bundle: most have one, CLIP-like models one a modality.

    Attributes:
        modality: ``text``, ``image`` or ``audio``.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
        embedding_output: the output that is the embedding, float32 ``[batch, dim]``, or
            ``[batch, rows * columns, dim]`` where there is a grid.
        pooling: modes, joined with ``+`` when their vectors are concatenated; ``patch`` where
            nothing is pooled.
        normalize: whether the graph ends in L2 normalization.
        input: how raw items become the graph's inputs; its type follows from the modality.
        grid: rows and columns of an image's patches, each of which has a vector, row by row; None
            for one vector an item.
    """

    modality: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    embedding_output: str
    pooling: str
    normalize: bool
    input: TextInput | ImageInput | AudioInput
    grid: tuple[int, int] | None = None

    def shape(self, width: int) -> tuple[int, ...]:
        """Of an item's embedding whose vectors have ``width`` elements."""
        return (width,) if self.grid is None else (self.grid[0] * self.grid[1], width)

    @property
    def longest_text(self) -> int | None:
        """Most tokens of a text; None for a tower of other items."""
        return self.input.max_length if isinstance(self.input, TextInput) else None


@dataclass(frozen=True)
class Head:
    """A graph behind a tower, for a task of its own.

    Attributes:
        task: ``segment``: points and boxes on an image to masks.
        modality: of the tower.
        features: outputs of the tower that are inputs of the graph, under the same names.
        inputs: names of the graph's other inputs.
        outputs: names of the graph's outputs.
        variants: the graphs, as a bundle's; each runs behind any of the tower's.
    """

    task: str
    modality: str
    features: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a bundle is; the only contract between the exporter and the runtime.

    Attributes:
        source: where the weights came from.
        packages: versions that the export ran with.
        model_type: architecture, as in the model's ``config.json``.
        dim: length of an embedding.
        matryoshka_dims: shorter lengths that the model was trained for.
        towers: the encoders, one a modality; all give vectors in the same space.
        files: the other files that the runtime needs, by path.
        variants: the graphs.
        fmrt_version: that wrote the bundle.
        schema_version: of this file.
        heads: further graphs, one a task.
    """

    source: Source
    packages: Mapping[str, str]
    model_type: str
    dim: int
    matryoshka_dims: tuple[int, ...]
    towers: tuple[Tower, ...]
    files: Mapping[str, FileRecord]
    variants: tuple[Variant, ...]
    fmrt_version: str
    schema_version: int = field(default=SCHEMA_VERSION)
    heads: tuple[Head, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the bundle embeds."""
        return tuple(tower.modality for tower in self.towers)

    @property
    def graphs(self) -> tuple[Variant, ...]:
        """The variants of towers and heads."""
        return (*self.variants, *(v for head in self.heads for v in head.variants))

    def tower(self, modality: str | None = None) -> Tower:
        """The encoder of a modality; None for the only one, or the one of texts.

        Raises:
            OptionError: the bundle has none.
        """
        if modality is None:
            modality = "text" if "text" in self.modalities else self.modalities[0]
        for tower in self.towers:
            if tower.modality == modality:
                return tower
        raise OptionError(f"this model embeds {' and '.join(self.modalities)}, not {modality}")

    def head(self, task: str) -> Head:
        """The graph for a task.

        Raises:
            OptionError: the bundle has none.
        """
        for head in self.heads:
            if head.task == task:
                return head
        raise OptionError(f"this {self.model_type} model cannot {task}; it only embeds")

    @property
    def text(self) -> TextInput:
        """How texts become model inputs.

        Raises:
            OptionError: the bundle does not embed texts.
        """
        found = self.tower("text").input
        assert isinstance(found, TextInput)  # noqa: S101  # by its modality
        return found

    def write(self, directory: Path) -> None:
        """Write ``fmrt.json`` into ``directory``, all of it or nothing."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        partial = directory / f"{MANIFEST_FILE}.partial-{os.getpid()}"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(directory / MANIFEST_FILE)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read ``directory``'s ``fmrt.json``.

        Raises:
            BundleNotFoundError: there is none.
            SchemaVersionError: a newer fmrt wrote it.
            BundleCorruptError: it is not a manifest.
        """
        return cls.from_json(_read_json(directory), directory / MANIFEST_FILE)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], path: Path) -> Manifest:
        """Build a manifest from parsed JSON; ``path`` is for messages. Unknown keys are ignored."""
        version = raw.get("schema_version")
        if not isinstance(version, int):
            raise BundleCorruptError(f"{path}: no integer schema_version; export the model again")
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{path} has schema version {version}, and this fmrt reads up to {SCHEMA_VERSION}: "
                "upgrade with pip install -U fmrt"
            )
        try:
            values = _known(cls, raw)
            values["source"] = _source(raw["source"])
            values["variants"] = tuple(map(_variant, raw["variants"]))
            values["files"] = _records(raw["files"])
            values["towers"] = tuple(map(_tower, raw["towers"]))
            values["matryoshka_dims"] = tuple(raw["matryoshka_dims"])
            values["heads"] = tuple(map(_head, raw.get("heads", ())))
            return cls(**values)
        except (KeyError, TypeError, AttributeError, IndexError) as e:
            raise BundleCorruptError(
                f"{path} is not a valid manifest ({e}); export the model again"
            ) from e


def _read_json(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_FILE
    try:
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        reason = "no such directory" if not directory.exists() else f"no {MANIFEST_FILE} in it"
        raise BundleNotFoundError(
            f"{directory} is not an fmrt bundle ({reason}); "
            f"make one with: fmrt export MODEL {directory}"
        ) from None
    except ValueError as e:
        raise BundleCorruptError(f"{path} is not valid JSON ({e}); export the model again") from e
    if not isinstance(raw, dict):
        raise BundleCorruptError(f"{path} is not a JSON object; export the model again")
    return raw


def _known(cls: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {key: value for key, value in raw.items() if key in names}


def _source(raw: Mapping[str, Any]) -> Source:
    values = _known(Source, raw)
    adapters = raw.get("adapters", ())
    values["adapters"] = tuple(Adapter(**_known(Adapter, adapter)) for adapter in adapters)
    return Source(**values)


def _variant(raw: Mapping[str, Any]) -> Variant:
    values = _known(Variant, raw)
    if values.get("parity") is not None:
        values["parity"] = Parity(**_known(Parity, values["parity"]))
    if values.get("quality") is not None:
        values["quality"] = Quality(**_known(Quality, values["quality"]))
    values["external"] = _records(raw.get("external", {}))
    return Variant(**values)


def _tower(raw: Mapping[str, Any]) -> Tower:
    kind = INPUTS[raw["modality"]]
    inner = _known(kind, raw["input"])
    values = _known(Tower, raw)
    values["input"] = kind(**{name: _tuple(value) for name, value in inner.items()})
    return Tower(**{name: _tuple(value) for name, value in values.items()})


def _head(raw: Mapping[str, Any]) -> Head:
    values = {name: _tuple(value) for name, value in _known(Head, raw).items()}
    values["variants"] = tuple(map(_variant, raw["variants"]))
    return Head(**values)


def _tuple(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    return tuple(value) if isinstance(value, list) else value


def _records(raw: Mapping[str, Any]) -> dict[str, FileRecord]:
    return {path: FileRecord(**_known(FileRecord, record)) for path, record in raw.items()}
