"""The manifest of a bundle, ``fmrt.json``: its types, and reading and writing them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any, cast

from fmrt.bundle.inputs import INPUTS, AudioInput, ImageInput, Name, Side, TextInput
from fmrt.bundle.regular import FIX, read_regular
from fmrt.bundle.typed import (
    Chosen,
    Contradictions,
    Count,
    Matches,
    OneOf,
    Printable,
    Range,
    WrongValueError,
    decode,
)
from fmrt.errors import BundleCorruptError, BundleNotFoundError, OptionError, SchemaVersionError
from fmrt.system.archive import Archive
from fmrt.system.whole_file import write_whole

__all__ = [
    "MANIFEST_FILE",
    "REFERENCE_FILE",
    "SCHEMA_VERSION",
    "Adapter",
    "AudioInput",
    "Evaluated",
    "EvaluatedMeasure",
    "FileRecord",
    "ImageInput",
    "Manifest",
    "Parity",
    "Quality",
    "Source",
    "TaskHead",
    "TextInput",
    "Tower",
    "Variant",
]

SCHEMA_VERSION = 1
MANIFEST_FILE = "fmrt.json"
REFERENCE_FILE = "reference.safetensors"
# Whose the reference vectors are: PyTorch's, those of an adopted fp32 graph itself, or nobody's.
PYTORCH, OWN_GRAPH, NOBODY = "pytorch", "graph", "none"
# Real ones are of some 10 kB.
MOST_BYTES = 4 << 20
MOST_DIMENSIONS = 1 << 20
# Elements of the vectors that one item may have, in patches.
MOST_ELEMENTS = 1 << 25

# Names that Windows takes for devices, whatever their ending.
_DEVICE = r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?"
_PART = rf"(?!(?i:{_DEVICE})(?:/|$))[\w+@=()~.-][\w+@=()~. -]{{0,199}}(?<![. ])"
# A name below the bundle: no way up, no root or drive, nothing that a system reads as more.
FileName = Annotated[
    str,
    Matches(
        rf"(?a:{_PART}(?:/{_PART}){{0,15}})",
        "the name of a file in the bundle: ASCII letters, digits and some signs, folders with /, "
        "no way out and no name of a device",
    ),
]
Sha256 = Annotated[str, Matches(r"[0-9a-f]{64}", "a SHA-256, 64 digits 0-9 and a-f")]
Bytes = Annotated[int, Range(0, 1 << 42)]
# Protobuf holds no more; further weights are in other files.
GraphBytes = Annotated[int, Range(0, 1 << 31)]
Items = Annotated[int, Range(0, 1 << 31)]
Modality = Annotated[str, OneOf(tuple(INPUTS))]
Names = Annotated[tuple[Name, ...], Count(1, 256)]


@dataclass(frozen=True)
class FileRecord:
    """Content of a file at export: SHA-256 in hex, size in bytes."""

    sha256: Sha256
    size: Bytes


@dataclass(frozen=True)
class Parity:
    """Distance of a variant's vectors from PyTorch's, over the reference items.

    Attributes:
        max_abs_error: The largest absolute difference of a component.
        mean_cosine: The mean cosine similarity.
        min_cosine: The worst cosine similarity.
    """

    max_abs_error: float
    mean_cosine: float
    min_cosine: float


@dataclass(frozen=True)
class EvaluatedMeasure:
    """A measure of a task, of a quantized variant and of fp32.

    Attributes:
        task: The task of ``fmrt evaluate``.
        name: The measure.
        value: The value of the variant.
        fp32: The value of fp32 on the same items.
        low: The start of the paired interval of 95% of the difference; None where there is none.
        high: The end of that interval.
        kept: Whether the difference is within the tolerance, or cannot be told from zero.
    """

    task: Name
    name: Name
    value: float
    fp32: float
    low: float | None
    high: float | None
    kept: bool


@dataclass(frozen=True)
class Evaluated:
    """What a quantized variant keeps of fp32 on a data set.

    Attributes:
        data: The name of the data set.
        sha256: The SHA-256 of its items and labels.
        tolerance: The largest loss of a measure that is accepted in any case.
        measures: The measures of all tasks.
    """

    data: Name
    sha256: Sha256
    tolerance: float
    measures: tuple[EvaluatedMeasure, ...]


@dataclass(frozen=True)
class Quality:
    """What a quantized variant is worth, measured where it was made.

    Attributes:
        items: The number of held-out items, which no choice was made on.
        mean_cosine: The mean cosine of their vectors with the fp32 variant's.
        min_cosine: The cosine of the worst of them.
        kept: The number of matrix products that were left in higher precision to get there.
        products: The number of matrix products with constant weights, in all.
        speed: The items per second as a multiple of the fp32 variant's, on ``cpu``; None where it
            could not be run on its own provider.
        cpu: The name of the processor.
        evaluated: What it keeps on a data set; None where none was given.
    """

    items: Items
    mean_cosine: float
    min_cosine: float
    kept: Items
    products: Items
    speed: float | None
    cpu: Name
    evaluated: Evaluated | None = None


@dataclass(frozen=True)
class Variant:
    """One graph of the bundle.

    Attributes:
        name: The name that ``variant=`` and ``--variant`` take, e.g. ``fp32``.
        file: The path below the bundle, with ``/``.
        provider: The provider: ``any`` for a portable graph, else the only one that it runs on
            (``cpu``).
        precision: The precision of the weights and arithmetic, e.g. ``fp32``.
        sha256: The SHA-256 of the file, in hex.
        size: The size of the file, in bytes.
        parity: The measured parity, or None if it could not be measured yet.
        checked_on: The provider that the parity was measured on; a graph for CUDA runs on the CPU
            too, with the GPU's operators but not its rounding.
        modality: The modality of the graph's tower.
        external: Further files of the variant, by path: the graph's weights, when they are not in
            the graph's own, and the graphs of other forms, which read the same weights.
        quality: The quality of a quantized variant.
        padded: Whether items of different lengths may share a batch, padded. Rounding to 8 bits
            makes a whole step of the last bit that padding changes in attention.
        packed: Whether the graph takes the padding out of a batch, and so computes tensors of
            another size for every batch.
        alone: Whether each item is a batch of its own, since others in its batch change its vector,
            as where activations are rounded by the largest of the whole batch.
        form: The operators of attention that the graph has, where there are others to choose from.
        forms: The graphs with other operators for the same, by form; one of ``external`` each.
            ``fmrt tune`` finds out which is fastest on a GPU.
        tolerance: The parity that a check must reach, from what was measured when a variant was
            adopted or quantized; None for the tolerance of its precision.
    """

    name: Annotated[str, Printable("a short name", 200, 1)]
    file: FileName
    provider: Name
    precision: Name
    sha256: Sha256
    size: GraphBytes
    modality: Modality = "text"
    parity: Parity | None = None
    checked_on: Name | None = None
    external: Mapping[FileName, FileRecord] = field(default_factory=dict)
    quality: Quality | None = None
    padded: bool = True
    packed: bool = False
    alone: bool = False
    form: Name | None = None
    forms: Mapping[Name, FileName] = field(default_factory=dict)
    tolerance: Parity | None = None

    def in_form(self, form: str | None) -> Variant:
        """The variant with the graph of another form; itself where it has none of that name."""
        file = self.forms.get(form or "")
        if file is None:
            return self
        graph = self.external[file]
        own = {self.file: FileRecord(self.sha256, self.size)}
        others = {name: record for name, record in self.external.items() if name != file}
        forms = {name: place for name, place in self.forms.items() if name != form}
        return dataclasses.replace(
            self,
            file=file,
            sha256=graph.sha256,
            size=graph.size,
            external=own | others,
            form=form,
            forms=({str(self.form): self.file} if self.form else {}) | forms,
        )

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        if not self.file.endswith(".onnx"):
            # ONNX Runtime reads others as another format.
            yield "file", f"is {self.file!r}, and must end with .onnx"
        if self.forms and self.form in (None, *self.forms):
            yield "form", f"is {self.form!r}, and must be another one than those of forms"
        for name, file in self.forms.items():
            if file not in self.external or not file.endswith(".onnx"):
                yield "forms", f"has {name!r} at {file!r}, which is no graph of external"


@dataclass(frozen=True)
class Adapter:
    """An adapter that was merged into the weights.

    Attributes:
        model: The hub id, or the name of a local directory.
        revision: The commit of a hub adapter, if known.
        weight: The factor of its change of the weights.
        weights_sha256: The hash over its weight files, as in `Source`.
    """

    model: Name
    revision: Name | None
    weight: float
    weights_sha256: Name


@dataclass(frozen=True)
class Source:
    """Where the weights came from.

    Attributes:
        model: The hub id, or the name of a local directory.
        revision: The commit of a hub model, if known.
        weights_sha256: The SHA-256 in hex over the weight files in name order.
        adapters: The adapters that are merged into the weights.
        remote_code: Whether Python files of the model's directory were allowed to run at export.
    """

    model: Name
    revision: Name | None
    weights_sha256: Name
    adapters: tuple[Adapter, ...] = ()
    remote_code: bool = False


@dataclass(frozen=True)
class Tower:
    """One encoder of a bundle: most have one, CLIP-like models one per modality.

    Attributes:
        modality: The modality: ``text``, ``image`` or ``audio``.
        inputs: The names of the graph's inputs.
        outputs: The names of the graph's outputs.
        embedding_output: The output that is the embedding, float32 ``[batch, dim]``, or
            ``[batch, rows * columns, dim]`` where there is a grid.
        pooling: The modes of pooling, joined with ``+`` when their vectors are concatenated;
            ``patch`` where nothing is pooled.
        normalize: Whether the graph ends in L2 normalization.
        input: How raw items become the graph's inputs; its type follows from the modality.
        grid: The numbers of rows and columns of an image's patches, each of which has a vector, row
            by row; None for one vector per item.
    """

    modality: Modality
    inputs: Names
    outputs: Names
    embedding_output: Name
    pooling: Name
    normalize: bool
    input: Annotated[TextInput | ImageInput | AudioInput, Chosen("modality", INPUTS)]
    grid: tuple[Side, Side] | None = None

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        yield from _twice("inputs", self.inputs)
        yield from _twice("outputs", self.outputs)
        if self.embedding_output not in self.outputs:
            yield "embedding_output", f"is {self.embedding_output!r}, which is none of outputs"
        if self.input.main not in self.inputs:
            yield "inputs", f"are {', '.join(self.inputs)}, without {self.input.main!r}"
        if self.grid is not None and self.modality != "image":
            yield "grid", f"is {list(self.grid)}, and {self.modality} has no patches"

    def shape(self, width: int) -> tuple[int, ...]:
        """The shape of an item's embedding whose vectors have ``width`` elements."""
        return (width,) if self.grid is None else (self.grid[0] * self.grid[1], width)

    @property
    def longest_text(self) -> int | None:
        """Most tokens of a text; None for a tower of other items."""
        return self.input.max_length if isinstance(self.input, TextInput) else None


@dataclass(frozen=True)
class TaskHead:
    """A graph that reads a tower's outputs, for a task of its own.

    Attributes:
        task: The task: ``segment``, from points and boxes on an image to masks.
        modality: The modality of the tower.
        features: The outputs of the tower that are inputs of the graph, under the same names.
        inputs: The names of the graph's other inputs.
        outputs: The names of the graph's outputs.
        variants: The graphs, as a bundle's; each runs with any of the tower's.
    """

    task: Name
    modality: Modality
    features: Names
    inputs: Names
    outputs: Names
    variants: tuple[Variant, ...] = ()

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        yield from _twice("inputs", (*self.features, *self.inputs))
        yield from _twice("outputs", self.outputs)
        yield from _twice("variants", [v.name for v in self.variants])
        if not self.variants:
            yield "variants", "is empty, and a task needs a graph"


@dataclass(frozen=True)
class Manifest:
    """What a bundle is; the only contract between the exporter and the runtime.

    Attributes:
        source: The origin of the weights.
        packages: The versions of the packages that the export ran with.
        model_type: The architecture, as in the model's ``config.json``.
        dim: The length of an embedding.
        matryoshka_dims: The shorter lengths that the model was trained for.
        towers: The encoders, one per modality; all give vectors in the same space.
        files: The other files that the runtime needs, by path.
        variants: The graphs.
        fmrt_version: The version of fmrt that wrote the bundle.
        schema_version: The version of this file's form.
        heads: Further graphs, one per task.
        reference: The source of the reference vectors: ``pytorch``; ``graph`` for those of an
            adopted fp32 graph itself; ``none`` where there are none, and so nothing was verified.
        exporter: The package that converted the model to ONNX; None for graphs that were adopted.
    """

    source: Source
    packages: Mapping[Name, Name]
    model_type: Name
    dim: Annotated[int, Range(1, MOST_DIMENSIONS)]
    matryoshka_dims: tuple[int, ...]
    towers: Annotated[tuple[Tower, ...], Count(1, len(INPUTS))]
    files: Mapping[FileName, FileRecord]
    variants: tuple[Variant, ...]
    fmrt_version: Name
    schema_version: Annotated[int, Range(0, SCHEMA_VERSION)] = field(default=SCHEMA_VERSION)
    heads: tuple[TaskHead, ...] = ()
    reference: Annotated[str, OneOf((PYTORCH, OWN_GRAPH, NOBODY))] = PYTORCH
    exporter: Name | None = None

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        for dim in self.matryoshka_dims:
            if not 1 <= dim <= self.dim:
                yield "matryoshka_dims", f"has {dim}, and dim is {self.dim}"
        yield from _twice("towers", self.modalities)
        yield from _twice("heads", [head.task for head in self.heads])
        yield from _twice("variants", [(v.modality, v.name) for v in self.variants])
        for field_, parts in (("variants", self.variants), ("heads", self.heads)):
            for part in parts:
                if part.modality not in self.modalities:
                    yield field_, f"has one of {part.modality!r}, and there is no such tower"
        for tower in self.towers:
            if prod(tower.shape(self.dim)) > MOST_ELEMENTS:
                yield "dim", f"is {self.dim:,}, too large with a grid of {tower.grid}"
        for head in self.heads:
            missing = set(head.features) - set(self.tower(head.modality).outputs)
            if missing:
                yield "heads", f"features {', '.join(sorted(missing))} are no outputs of the tower"
        yield from _two_files(self._records())

    def _records(self) -> Iterator[tuple[str, FileRecord]]:
        """Every file that the manifest names, with its record."""
        yield from self.files.items()
        for graph in self.graphs:
            yield graph.file, FileRecord(graph.sha256, graph.size)
            yield from graph.external.items()

    @property
    def unverified(self) -> str | None:
        """Why no vector was compared with PyTorch's, in words; None where they were."""
        return {
            NOBODY: "unverified: no reference; adopt it again with --model MODEL to verify it",
            OWN_GRAPH: "unverified: its reference vectors are its fp32 graph's own, not PyTorch's",
        }.get(self.reference)

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
            OptionError: The bundle has none.
        """
        if modality is None:
            modality = "text" if "text" in self.modalities else self.modalities[0]
        for tower in self.towers:
            if tower.modality == modality:
                return tower
        raise OptionError(f"this model embeds {' and '.join(self.modalities)}, not {modality}")

    def head(self, task: str) -> TaskHead:
        """The graph for a task.

        Raises:
            OptionError: The bundle has none.
        """
        for head in self.heads:
            if head.task == task:
                return head
        raise OptionError(f"this {self.model_type} model cannot {task}; it only embeds")

    @property
    def text(self) -> TextInput:
        """How texts become model inputs.

        Raises:
            OptionError: The bundle does not embed texts.
        """
        return cast("TextInput", self.tower("text").input)

    def write(self, directory: Path) -> None:
        """Write ``fmrt.json`` into ``directory``, all of it or nothing."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_whole(directory / MANIFEST_FILE, f"{text}\n".encode())

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read ``directory``'s ``fmrt.json``.

        Raises:
            BundleNotFoundError: There is no such file.
            SchemaVersionError: A newer fmrt wrote it.
            BundleCorruptError: It is not a manifest.
        """
        return cls.from_bytes(manifest_bytes(directory), directory / MANIFEST_FILE)

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Manifest:
        """Build a manifest from a file's content; ``path`` is for messages.

        Unknown keys are ignored.

        Raises:
            SchemaVersionError: A newer fmrt wrote it.
            BundleCorruptError: It is not a manifest; says which field has which wrong value.
        """
        raw = _parsed(data, path)
        version = raw.get("schema_version")
        if type(version) is not int:
            raise BundleCorruptError(f"{path}: no integer schema_version; {FIX}")
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{path} has schema version {version}, and this fmrt reads up to {SCHEMA_VERSION}: "
                "upgrade with pip install -U fmrt"
            )
        try:
            return decode(cls, raw)
        except WrongValueError as e:
            raise BundleCorruptError(f"{path}: {e}; {FIX}") from e


def manifest_bytes(directory: Path, archive: Archive | None = None) -> bytes:
    """Content of a bundle's ``fmrt.json``, in a directory or in an archive.

    Raises:
        BundleNotFoundError: There is no such file.
        BundleCorruptError: It is no regular file, too large, or cannot be read.
    """
    if archive is not None:
        member = archive.member(MANIFEST_FILE)
        if member.size > MOST_BYTES:
            raise BundleCorruptError(f"{member} is of {member.size:,} bytes, too many; {FIX}")
        return member.read_bytes()
    try:
        return read_regular(directory / MANIFEST_FILE, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        reason = "no such directory" if not directory.exists() else f"no {MANIFEST_FILE} in it"
        raise BundleNotFoundError(
            f"{directory} is not an fmrt bundle ({reason}); "
            f"make one with: fmrt export MODEL {directory}"
        ) from None


def _parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise BundleCorruptError(f"{path} is not valid JSON ({e}); {FIX}") from e
    if not isinstance(raw, dict):
        raise BundleCorruptError(f"{path} is not a JSON object; {FIX}")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of whose keys none is there twice: readers would not agree which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found


def _twice(field_: str, values: Sequence[object]) -> Contradictions:
    for value in dict.fromkeys(values):
        if values.count(value) > 1:
            yield field_, f"has {value!r} twice"


def _two_files(records: Iterable[tuple[str, FileRecord]]) -> Contradictions:
    """Names that are one file to some systems, and records that one file cannot have."""
    found: dict[str, tuple[str, FileRecord]] = {}
    for name, record in records:
        other, its = found.setdefault(name.lower(), (name, record))
        if other != name:
            yield "files", f"has {other!r} and {name!r}, which differ in case alone"
        elif its != record:
            yield "files", f"has {name!r} with two contents"
