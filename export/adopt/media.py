"""The adoption of the graphs of a model of images or of sounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from transformers import AutoModel
from transformers.utils import ModelOutput

from fmrt.bundle.manifest import AudioInput, Variant
from fmrt.errors import ExportError, said
from fmrt.export.adopt.adoption import Adoption, drop_bare, save_bare
from fmrt.export.adopt.checking import Probe
from fmrt.export.adopt.graph import MASK, OF_MEDIA, POOLED, STATES, Adopted, bind_mask
from fmrt.export.adopt.joining import Layers, attach, lower
from fmrt.export.adopt.source import open_graph
from fmrt.export.audio.tower import AudioEmbedding, load_audio
from fmrt.export.choices import Choice
from fmrt.export.loading.backbone import backbone_class, read_config
from fmrt.export.part import Loaded, TowerPart
from fmrt.export.quiet import quiet
from fmrt.export.trace import OPSETS, trace
from fmrt.export.vision.tower import ImageEmbedding, load_vision
from fmrt.export.writing.local_paths import remove_local_paths

PIXELS = "pixel_values"
# Sounds that tell what a batch does: how many, and of how many seconds.
ALIKE, SECONDS = 4, 0.5
POOLER = "pooler"
SAME = 1e-5  # of the largest component


class MediaAdoption(Adoption):
    """The adoption of a model of images, or of sounds."""

    def write(self, directory: Path) -> None:
        """Write the bundle, and check it."""
        read = self.read()
        found, first = read[0]
        bare = save_bare(first.model, directory)
        backbone = GraphModel(bare, self.origin.path, self.overrides.trust_remote_code)
        loaded = self._loaded(backbone, first)
        for choice in loaded.choices:
            self.say(f"  {choice}")
        (part,) = loaded.parts()
        given = backbone(**part.inputs)
        module: Any = part.module
        if module.pooling == POOLER and not set(OF_MEDIA) & set(given):
            self._pool_otherwise(part)
        tower = dataclasses.replace(
            part.tower, outputs=(part.tower.embedding_output,), pooling=module.pooling
        )
        names: set[str] = set()
        variants: list[Variant] = []
        for file, graph in read:
            if missing := set(given) - set(graph.outputs):
                self.say(f"left out {file.path.name}: it does not give {', '.join(missing)}")
                continue
            if MASK in graph.inputs and MASK not in tower.inputs:
                bind_mask(graph.model, self.main)
            attach(graph.model, _head(part, given, graph.opset))
            variants += self.variant(file, graph, tower, directory, names)
        drop_bare(directory)
        if not self.weights:  # the class of the configuration, not what stands in for it
            part.module.backbone = backbone.shape
        loaded.write_configuration(directory, variants)
        remove_local_paths(directory)
        dim = part.reference.embeddings.shape[-1]
        manifest = self.manifest([tower], dim, variants, directory, [found], loaded.files)
        references = {part.modality: part.reference} if self.weights or self.record else {}
        self.check(manifest, directory, references, [probe_of(part)])

    def _loaded(self, backbone: GraphModel, graph: Adopted) -> Loaded:
        """The model, or what its directory says of it with the graph in its place."""
        stand_in = None if self.weights else backbone
        if self.main == PIXELS:
            loaded = load_vision(self.origin, "cpu", self.overrides, stand_in)
        else:
            masked = MASK in graph.inputs
            loaded = load_audio(self.origin, "cpu", self.overrides, stand_in, masked=masked)
        return loaded

    def _pool_otherwise(self, part: TowerPart) -> None:
        """Let the tower pool in another way, if that gives the pooled output that a graph lacks.

        So it is in families whose pooled output is a token's state, or the mean of a map.
        """
        module: Any = part.module
        with torch.no_grad():
            want = list(module(**part.inputs).values())[-1]
            for mode in ("cls", "mean"):
                module.pooling = mode
                got = list(module(**part.inputs).values())[-1]
                if got.shape == want.shape and (got - want).abs().max() <= SAME * want.abs().max():
                    equal = Choice("pooling", mode, f"equal to the {POOLED}, which no graph gives")
                    self.say(f"  {equal}")
                    return
        module.pooling = POOLER


class GraphModel(torch.nn.Module):
    """A graph in the place of a transformers model.

    Args:
        graph: The file of the graph.
        path: The directory of its configuration.
        trust: Whether Python files of the directory may run.
    """

    def __init__(self, graph: Path, path: Path, trust: bool) -> None:
        super().__init__()
        self.config = read_config(path, trust)
        self.device = torch.device("cpu")
        kind = backbone_class(self.config)
        with quiet(), torch.device("meta"):
            known = kind is not AutoModel
            shape = kind(self.config) if known else AutoModel.from_config(self.config)
        # Not a module of this one: what has no memory cannot be moved to a device.
        self._shape = (shape,)
        self._session = open_graph(graph)

    def forward(self, **inputs: Tensor) -> ModelOutput:
        """Run the graph."""
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        feeds = {name: value.numpy() for name, value in inputs.items() if name in shapes}
        if MASK in shapes and MASK not in feeds:
            (first, *_) = inputs.values()
            # Where the length is fixed, the graph states it: Whisper's frames are the last axis.
            stated = shapes[MASK][1]
            length = stated if isinstance(stated, int) else first.shape[1]
            feeds[MASK] = np.ones((first.shape[0], length), np.int64)
        outputs = [value.name for value in self._session.get_outputs()]
        try:
            found = self._session.run(outputs, feeds)
        except Exception as e:  # of ONNX Runtime's own kinds
            raise ExportError(f"ONNX Runtime does not run the graph: {said(e)}") from e
        values = map(torch.from_numpy, found)
        return ModelOutput(zip(outputs, values, strict=True))

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Those of the model that the graph was made from, for their names and sizes."""
        found: Iterator[Any] = self.shape.named_parameters(*args, **options)
        return found

    @property
    def shape(self) -> Any:  # noqa: ANN401  # a transformers model
        """The model of the configuration, without memory for weights."""
        return self.__dict__["_shape"][0]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of a transformers model
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.shape, name)


class _After(torch.nn.Module):
    """What comes after the states that a graph gives: an item's vector."""

    def __init__(self, embedding: ImageEmbedding | AudioEmbedding, states: Sequence[str]) -> None:
        super().__init__()
        # Not a module of this one, whose weights are the graph's.
        self._embedding = (embedding,)
        self._states = tuple(states)

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        """Pool, and normalize where the tower does."""
        (embedding,) = self._embedding
        output = ModelOutput({name: given[name] for name in self._states})
        if isinstance(embedding, AudioEmbedding):
            rest = {name: value for name, value in given.items() if name not in self._states}
            outputs = embedding.after(output, rest)
        else:
            outputs = embedding.after(output)
        name = list(outputs)[-1]
        return {name: outputs[name]}


def _head(part: TowerPart, given: ModelOutput, opset: int) -> ir.Model:
    """The graph from what a graph gives to an item's vector.

    Args:
        part: The tower.
        given: What the graph gives for the tower's example batch.
        opset: The version of ONNX's operators.

    Raises:
        ExportError: The graph does not give what the vector is made of.
    """
    module: Any = part.module
    _check_given(module, list(given))
    masks = {name: value for name, value in part.inputs.items() if name == MASK}
    varying = part.axes[next(iter(part.inputs))]
    axes = {name: varying if name == STATES else (0,) for name in given}
    head = Layers(
        stem="head",
        module=_After(module, list(given)).eval(),
        inputs={**given, **masks},
        axes={**axes, **{name: part.axes[name] for name in masks}},
    )
    graph = trace(head, part.modality, max(opset, OPSETS.start))
    lower(graph, opset)
    return graph


def _check_given(module: ImageEmbedding | AudioEmbedding, given: Sequence[str]) -> None:
    pooled = any(name in given for name in OF_MEDIA)
    if STATES not in given or (module.pooling == POOLER and not pooled):
        lacks = STATES if STATES not in given else POOLED
        other = "" if lacks == STATES else "; --pooling asks for another than the model's own"
        raise ExportError(f"the graph gives {', '.join(given)}, and no {lacks}{other}")


def probe_of(part: TowerPart) -> Probe:
    """Items that tell what a batch does."""
    spec = part.tower.input
    if not isinstance(spec, AudioInput) or spec.fixed:
        return Probe(part.modality, part.reference.items)
    samples = max(spec.min_samples, int(SECONDS * spec.sampling_rate))
    drawn = np.random.default_rng(0).normal(0, 0.1, (ALIKE, min(samples, spec.max_samples)))
    unlike = part.reference.items if spec.masked else ()
    return Probe(part.modality, list(drawn.astype(np.float32)), unlike)
