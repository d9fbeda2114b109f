"""The adoption of the graphs of a model of two towers, such as CLIP's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from fmrt.bundle.manifest import Tower, Variant
from fmrt.errors import ExportError, OptionError
from fmrt.export.adopt.adoption import Adoption, drop_bare, save_bare
from fmrt.export.adopt.checking import TEXTS
from fmrt.export.adopt.graph import (
    IDS,
    MASK,
    POOLED,
    TYPES,
    Adopted,
    TowerNames,
    bind_mask,
    bind_to,
    claim,
)
from fmrt.export.adopt.joining import Layers, attach, lower
from fmrt.export.adopt.layout import Found
from fmrt.export.adopt.media import PIXELS, probe_of
from fmrt.export.adopt.source import open_graph, place_of, run_graph
from fmrt.export.choices import Choice
from fmrt.export.loading.backbone import backbone_class, read_config
from fmrt.export.loading.directory import MODULES_FILE
from fmrt.export.part import Loaded, TowerPart, features
from fmrt.export.quiet import quiet
from fmrt.export.towers import FULL_LENGTH, load_sentence_towers, load_towers
from fmrt.export.trace import OPSETS, trace
from fmrt.export.writing.local_paths import remove_local_paths

TEXT = "text"
FEATURES = "input_features"
# What projects a tower's vector into the space of both, where something does.
PROJECTIONS = {
    TEXT: ("text_projection",),
    "image": ("visual_projection", "vision_projection", "image_projection"),
    "audio": ("audio_projection",),
}
# What a graph's vectors are called before they are normalized.
GIVEN = "adopted_vectors"
UNIT = 1e-3
# A text that tells whether a graph's vectors have unit length, in tokens.
SOME = 4


@dataclass(frozen=True)
class Side:
    """The graphs of one tower.

    Attributes:
        names: What tools call its inputs and outputs.
        graphs: The graphs with the places where they were found, the best first.
        bare: The file of the first graph as it was given.
    """

    names: TowerNames
    graphs: list[tuple[Found, Adopted]]
    bare: Path

    @property
    def file(self) -> str:
        """The name of the first graph's file."""
        return self.graphs[0][0].path.name


class TowersAdoption(Adoption):
    """The adoption of a model of texts, and of images or sounds."""

    def write(self, directory: Path) -> None:
        """Write the bundle, and check it."""
        if self.overrides.pooling is not None:
            raise OptionError("--pooling: the towers end in the model's own projections")
        shape = _shape(place_of(self.origin.path), self.overrides.trust_remote_code)
        sides = self._sides(_names(shape), directory)
        graphs = GraphTowers(shape, sides)
        loaded = self._loaded(graphs, sides[TEXT])
        parts = {part.modality: part for part in loaded.parts()}
        dim = self._dim(graphs, sides, parts)
        drop_bare(directory)
        towers = {modality: _tower(part) for modality, part in parts.items()}
        variants = [
            variant
            for modality, side in sides.items()
            for variant in self._variants(side, towers[modality], parts[modality].stem, directory)
        ]
        loaded.write_configuration(directory, variants)
        remove_local_paths(directory)
        first = [side.graphs[0][0] for side in sides.values()]
        whole = list(towers.values())
        manifest = self.manifest(whole, dim, variants, directory, first, loaded.files)
        known = parts if self.weights or self.record else {}
        references = {modality: part.reference for modality, part in known.items()}
        probes = [TEXTS if m == TEXT else probe_of(part) for m, part in parts.items()]
        self.check(manifest, directory, references, probes)

    def _sides(self, names: Mapping[str, TowerNames], directory: Path) -> dict[str, Side]:
        """The graphs of each tower.

        Raises:
            ExportError: A tower has no graph that can be adopted.
        """
        found, left = self.layout.of_towers(list(names))
        for other in left:
            self.say(f"left out {other.path.name}: the towers have graphs of their own")
        sides: dict[str, Side] = {}
        for modality, tower in names.items():
            graphs = self.read(found[modality], tower.main, tower)
            bare = save_bare(graphs[0][1].model, directory, modality)
            sides[modality] = Side(tower, graphs, bare)
        return sides

    def _loaded(self, graphs: GraphTowers, texts: Side) -> Loaded:
        """The model, or what its directory says of it with the graphs in its place.

        Raises:
            OptionError: The graphs normalize, and are asked not to.
        """
        overrides = self.overrides
        unit = graphs.is_unit()
        if unit and overrides.normalize is False:
            raise OptionError(f"{texts.file} ends in vectors of length 1: leave --no-normalize out")
        if unit:
            overrides = dataclasses.replace(overrides, normalize=True)
        modules = (self.origin.path / MODULES_FILE).is_file()
        load = load_sentence_towers if modules else load_towers
        loaded = load(self.origin, "cpu", overrides, None if self.weights else graphs)
        own = Choice("normalize", "yes", "the graphs' own")
        for choice in loaded.choices:
            replaced = choice.name == own.name and unit and self.overrides.normalize is None
            self.say(f"  {own if replaced else choice}")
        return loaded

    def _dim(
        self, graphs: GraphTowers, sides: Mapping[str, Side], parts: Mapping[str, TowerPart]
    ) -> int:
        """The number of elements of an item's vector.

        Raises:
            ExportError: The towers give vectors of different sizes, or others than the model.
        """
        sizes = {m: graphs.run(m, part.inputs).shape[-1] for m, part in parts.items()}
        (text, size), (other, other_size) = sizes.items()
        if size != other_size:
            raise ExportError(
                f"{sides[text].file} gives vectors of {size} elements, and {sides[other].file} of "
                f"{other_size}: they are no towers of one model"
            )
        want = parts[text].reference.embeddings.shape[-1]
        if size != want:
            raise ExportError(
                f"{sides[text].file} gives vectors of {size} elements, and {self.origin.name} of "
                f"{want}: it was made from another model"
            )
        return int(size)

    def _variants(self, side: Side, tower: Tower, stem: str, directory: Path) -> Iterator[Variant]:
        """Write each graph of a tower with its normalization, and the first one for the CPU too."""
        names: set[str] = set()
        for found, graph in side.graphs:
            _finish(graph, side.names.main, tower)
            yield from self.variant(found, graph, tower, directory, names, stem)


class GraphTowers(torch.nn.Module):
    """Graphs in the place of a transformers model of two towers.

    Args:
        shape: The model of the configuration, without memory for weights.
        sides: The graphs of each tower.
    """

    def __init__(self, shape: PreTrainedModel, sides: Mapping[str, Side]) -> None:
        super().__init__()
        self.config = shape.config
        self.device = torch.device("cpu")
        # Not a module of this one: what has no memory cannot be moved to a device.
        self._shape = (shape,)
        self._sessions = {modality: open_graph(side.bare) for modality, side in sides.items()}

    @property
    def shape(self) -> Any:  # noqa: ANN401  # a transformers model
        """The model of the configuration, without memory for weights."""
        return self.__dict__["_shape"][0]

    def run(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The vectors of a batch as a tower's graph gives them, float32 ``[batch, dim]``."""
        session = self._sessions[modality]
        feeds = {name: value.numpy() for name, value in inputs.items()}
        if IDS in feeds:
            feeds = {MASK: np.ones_like(feeds[IDS]), TYPES: np.zeros_like(feeds[IDS]), **feeds}
        (output,) = session.get_outputs()
        return torch.from_numpy(run_graph(session, feeds, output.name))

    def is_unit(self) -> bool:
        """Whether the graph of texts gives vectors of length 1."""
        (stated,) = (v.shape for v in self._sessions[TEXT].get_inputs() if v.name == IDS)
        length = next((size for size in stated[1:] if isinstance(size, int)), SOME)
        norms = self.run(TEXT, {IDS: torch.ones(1, length, dtype=torch.int64)}).norm(dim=-1)
        return bool((norms - 1).abs().max() <= UNIT)

    def _features(self, modality: str, **inputs: Tensor) -> ModelOutput:
        """A tower's vectors, and how many states it has; what these are, no graph says."""
        states = None
        if modality != TEXT:
            shapes = {name: value.to("meta") for name, value in inputs.items()}
            states = features(self.shape, modality)(**shapes).last_hidden_state
        given = {name: value for name, value in inputs.items() if value is not None}
        return BaseModelOutputWithPooling(states, self.run(modality, given))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of a transformers model
        for modality in self.__dict__.get("_sessions", ()):
            if name == f"get_{modality}_features":
                return partial(self._features, modality)
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.shape, name)


class _Unit(torch.nn.Module):
    """A tower's vectors with length 1."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        """Normalize the only input, float32 ``[batch, dim]``."""
        (vectors,) = given.values()
        return {self.output: normalize(vectors, dim=-1)}


def _shape(path: Path, trust: bool) -> PreTrainedModel:
    """The model of a directory's configuration, without memory for weights."""
    config = read_config(path, trust)
    kind: Any = backbone_class(config)
    with quiet(), torch.device("meta"):
        known = kind is not AutoModel
        model: PreTrainedModel = kind(config) if known else AutoModel.from_config(config)
    return model.eval()


def _names(shape: PreTrainedModel) -> dict[str, TowerNames]:
    """What tools call the inputs and outputs of a model's towers."""
    other = "image" if hasattr(shape, "get_image_features") else "audio"
    mains = {TEXT: IDS, other: PIXELS if other == "image" else FEATURES}
    return {
        modality: TowerNames(
            modality=modality,
            main=main,
            vectors=_vectors(shape, modality),
            other=next(name for name in mains.values() if name != main),
            one_length=shape.config.model_type in FULL_LENGTH,
        )
        for modality, main in mains.items()
    }


def _vectors(shape: PreTrainedModel, modality: str) -> tuple[str, ...]:
    """The outputs that may be a tower's vectors; its pooled output, where nothing comes after."""
    projected = any(hasattr(shape, name) for name in PROJECTIONS[modality])
    return (f"{modality}_embeds", *(() if projected else (POOLED,)))


def _tower(part: TowerPart) -> Tower:
    """The tower of graphs that give an item's vector alone."""
    return dataclasses.replace(part.tower, outputs=(part.tower.embedding_output,))


def _finish(graph: Adopted, main: str, tower: Tower) -> None:
    """Give a graph the tower's inputs and its only output, normalized where the tower is."""
    (vector,) = graph.model.graph.outputs
    if tower.normalize:
        claim(graph.model.graph, vector, GIVEN)
        attach(graph.model, _normalization(tower, graph.opset))
    else:
        claim(graph.model.graph, vector, tower.embedding_output)
    if MASK in graph.inputs and MASK not in tower.inputs:
        bind_mask(graph.model, main)
    if main == IDS:
        bind_to(graph.model, tower)


def _normalization(tower: Tower, opset: int) -> ir.Model:
    head = Layers(
        stem="head",
        module=_Unit(tower.embedding_output).eval(),
        inputs={GIVEN: torch.ones(2, 3)},
        axes={GIVEN: (0, 1)},
    )
    graph = trace(head, tower.modality, max(opset, OPSETS.start))
    lower(graph, opset)
    return graph
