"""The adoption of a text model's graphs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Tower, Variant
from fmrt.errors import ExportError, OptionError
from fmrt.export.adopt.adoption import Adoption, drop_bare, save_bare
from fmrt.export.adopt.checking import TEXTS, own_reference
from fmrt.export.adopt.graph import EMBEDDING, IDS, MASK, STATES, TYPES, Adopted, bind_to
from fmrt.export.adopt.joining import attach, make_head
from fmrt.export.adopt.layout import Found
from fmrt.export.adopt.source import load_source, open_graph, run_graph
from fmrt.export.choices import Choice, yes_or_no
from fmrt.export.loading.directory import MODULES_FILE
from fmrt.export.text.configuration import write_text_configuration
from fmrt.export.text.padding import find_padding
from fmrt.export.text.source import TextSource
from fmrt.export.text.tower import PROMPT_LENGTH, pytorch_reference, text_tower
from fmrt.export.writing.local_paths import remove_local_paths
from fmrt.preprocess import TOKENIZER_FILE

UNIT = 1e-3


class TextAdoption(Adoption):
    """The adoption of a model of texts alone."""

    def write(self, directory: Path) -> None:
        """Write the bundle, and check it."""
        read = self.read()
        found, first = read[0]
        bare = save_bare(first.model, directory)
        source, own = self._source(first, bare)
        tower = self._tower(source, [graph for _, graph in read], own=own, bare=bare)
        dim, width = _sizes(bare, source, own=own)
        variants = list(self._variants(read, tower, source, width, directory, own=own))
        drop_bare(directory)
        self._configure(source, directory, variants, stated=not own or self.weights)
        reference = pytorch_reference(source) if self.weights else None
        dim = dim if reference is None else reference.embeddings.shape[-1]
        manifest = self.manifest([tower], dim, variants, directory, [found], [TOKENIZER_FILE])
        if reference is None and self.record:
            reference = own_reference(Bundle(directory, manifest), source)
        references = {} if reference is None else {tower.modality: reference}
        self.check(manifest, directory, references, [TEXTS])

    def _source(self, graph: Adopted, bare: Path) -> tuple[TextSource, bool]:
        """The model, and whether the graph's own vector of a text is taken."""
        asked = self.overrides.pooling is not None or self.overrides.normalize is not None
        own = EMBEDDING in graph.outputs and not asked
        if not own and STATES not in graph.outputs:
            raise OptionError(
                f"the graph ends in {EMBEDDING}, pooled and normalized as it is: leave --pooling "
                "and --normalize out"
            )
        source = load_source(self.origin, self.overrides, bare, own_vector=own)
        if own and not source.pooling.include_prompt:
            if STATES not in graph.outputs:
                raise ExportError(
                    "the model leaves prompts out of its pooling, and the graph pools them: export "
                    "it again for feature extraction"
                )
            own = False
        if own:
            what = f"the graph's own ({EMBEDDING})"
            self.say(f"  {Choice('pooling', what, 'its outputs')}")
        for choice in source.choices:
            self.say(f"  {choice}")
        return source, own

    def _tower(
        self, source: TextSource, graphs: Sequence[Adopted], *, own: bool, bare: Path
    ) -> Tower:
        typed = TYPES in source.model.tokenizer.model_input_names
        names = [IDS, MASK]
        if typed and any(TYPES in graph.inputs for graph in graphs):
            names.append(TYPES)
        if not own and not source.pooling.include_prompt:
            names.append(PROMPT_LENGTH)
        has_states = STATES in graphs[0].outputs
        harmless = True
        if has_states:
            padding = find_padding(source)
            harmless = padding.harmless
            for choice in padding.choices:
                self.say(f"  {choice}")
            if padding.positions:  # which an adopted graph may not count
                source.model.tokenizer.padding_side = "right"
        outputs = (STATES, EMBEDDING) if has_states else (EMBEDDING,)
        tower = text_tower(source, tuple(names), padded=harmless, outputs=outputs)
        if own and not self.weights:
            normalize = _is_normalized(bare, source)
            self.say(f"  normalize: {yes_or_no(normalize)} (measured)")
            stated = (self.origin.path / MODULES_FILE).is_file()
            pooling = tower.pooling if stated else "own"
            return dataclasses.replace(tower, normalize=normalize, pooling=pooling)
        return tower

    def _variants(
        self,
        read: Sequence[tuple[Found, Adopted]],
        tower: Tower,
        source: TextSource,
        width: int,
        directory: Path,
        *,
        own: bool,
    ) -> Iterator[Variant]:
        """Write each graph with the model's pooling, and the first one for the CPU too."""
        names: set[str] = set()
        for found, graph in read:
            missing = (EMBEDDING if own else STATES) not in graph.outputs
            if missing or (len(tower.outputs) > 1 and STATES not in graph.outputs):
                self.say(f"left out {found.path.name}: it lacks outputs that {names} has")
                continue
            if not own:
                attach(graph.model, make_head(source, width, graph.opset), [STATES])
            bind_to(graph.model, tower)
            yield from self.variant(found, graph, tower, directory, names)

    def _configure(
        self, source: TextSource, directory: Path, variants: Sequence[Variant], *, stated: bool
    ) -> None:
        if not self.weights:  # the class of the configuration, not what stands in for it
            source.transformer.model = source.transformer.auto_model.shape
        write_text_configuration(source, directory, variants)
        if not stated and not (self.origin.path / MODULES_FILE).is_file():
            # Which pooling the graph has is not known: others must not read one that is made up.
            (directory / MODULES_FILE).unlink()
            shutil.rmtree(directory / "1_Pooling")
        remove_local_paths(directory)


def _sizes(bare: Path, source: TextSource, *, own: bool) -> tuple[int, int]:
    """Elements of a text's vector, and of a token's state, as the graph gives them."""
    session = open_graph(bare)
    ids = np.array([source.model.tokenizer("a")["input_ids"] or [0]], np.int64)
    feeds = {IDS: ids, MASK: np.ones_like(ids), TYPES: np.zeros_like(ids)}
    outputs = [value.name for value in session.get_outputs()]
    width = run_graph(session, feeds, STATES).shape[-1] if STATES in outputs else 0
    if own:
        return run_graph(session, feeds, EMBEDDING).shape[-1], width
    found = source.model.get_embedding_dimension()
    return int(found or width), width


def _is_normalized(bare: Path, source: TextSource) -> bool:
    """Whether the vectors that a graph gives have unit length."""
    session = open_graph(bare)
    for text in ("a", "Two short sentences. Nothing more."):
        ids = np.array([source.model.tokenizer(text)["input_ids"]], np.int64)
        feeds = {IDS: ids, MASK: np.ones_like(ids), TYPES: np.zeros_like(ids)}
        vector = run_graph(session, feeds, EMBEDDING)
        if abs(float(np.linalg.norm(vector)) - 1) > UNIT:
            return False
    return True
