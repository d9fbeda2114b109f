"""What an adoption does of any model: reads graphs, writes variants, and checks them."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle, Reference, record_of
from fmrt.bundle.manifest import (
    NOBODY,
    OWN_GRAPH,
    PYTORCH,
    REFERENCE_FILE,
    Manifest,
    Source,
    Tower,
    Variant,
)
from fmrt.errors import ExportError
from fmrt.export.adopt.checking import FP32, Checker, Probe
from fmrt.export.adopt.graph import IDS, Adopted, TowerNames, read_graph
from fmrt.export.adopt.layout import Found, Layout
from fmrt.export.adopt.source import has_weights
from fmrt.export.bundle import PACKAGES
from fmrt.export.choices import Overrides, Report
from fmrt.export.graph_file import unwritten, write_graph
from fmrt.export.graphs import NOT_REWRITTEN
from fmrt.export.loading.fetching import Origin, sha256_over
from fmrt.export.rewrite import optimize_for_cpu
from fmrt.export.writing.reference import write_references

# The start of the name of a first graph as it was given, while the bundle is written.
BARE = ".adopted"


@dataclasses.dataclass
class Adoption:
    """One run: what was read, and what has been written so far."""

    layout: Layout
    origin: Origin
    overrides: Overrides
    model_type: str
    record: bool
    say: Report
    main: str = IDS

    @abstractmethod
    def write(self, directory: Path) -> None:
        """Write the bundle, and check it.

        Raises:
            ExportError: The graphs cannot be adopted, with the reason.
        """

    def bundle(self, directory: Path) -> Bundle:
        """The bundle that was written, without its warning."""
        return Bundle(directory, Manifest.read(directory))

    @property
    def weights(self) -> bool:
        """Whether there are PyTorch's weights to compare with."""
        return has_weights(self.origin.path)

    def read(
        self,
        graphs: Sequence[Found] | None = None,
        main: str | None = None,
        tower: TowerNames | None = None,
    ) -> list[tuple[Found, Adopted]]:
        """Each graph that can be adopted, one in fp32 first; the others are said.

        Args:
            graphs: The graphs; default all.
            main: Their main input; default the model's.
            tower: The tower that is cut out of each; default they are of one tower.

        Raises:
            ExportError: No graph can be adopted.
        """
        read: list[tuple[Found, Adopted]] = []
        refused: list[str] = []
        for found in self.layout.graphs if graphs is None else graphs:
            try:
                graph = read_graph(found.path, self.layout.root, main or self.main, tower)
                read.append((found, graph))
            except ExportError as e:
                refused.append(str(e))
        if not read:
            raise ExportError(refused[0])
        for why in refused:
            self.say(f"left out: {why}")
        for found, graph in read:
            made = f"{graph.model.producer_name or 'an unnamed tool'}"
            of = "" if tower is None else f" ({tower.modality})"
            self.say(f"adopting {found.path.name}{of}: {graph.precision}, made by {made}")
            for bound in graph.bound:
                self.say(f"  {bound}")
        first = next((pair for pair in read if pair[1].precision == FP32), read[0])
        return [first, *(pair for pair in read if pair is not first)]

    def variant(
        self,
        found: Found,
        graph: Adopted,
        tower: Tower,
        directory: Path,
        names: set[str],
        stem: str = "model",
    ) -> list[Variant]:
        """Write a graph that is complete; the fp32 one for the CPU too.

        Args:
            found: The place where the graph was found.
            graph: The graph with the tower's inputs and outputs.
            tower: The tower.
            directory: The directory of the bundle.
            names: The names that are taken; the variant's own is added.
            stem: The stem of the graph's file names.
        """
        name = found.suffix or graph.precision
        name = name if name not in names else f"{name}-{len(names)}"
        names.add(name)
        provider = "any" if graph.standard else "cpu"
        suffix = "" if name == graph.precision == FP32 else f"_{name}"
        blank = unwritten(name, stem, suffix, provider, tower.modality, graph.precision)
        written = [write_graph(graph.model, directory, blank)]
        if name == FP32 and (self.weights or self.record):
            written += self._for_cpu(graph, tower, directory, stem)
        return written

    def _for_cpu(self, graph: Adopted, tower: Tower, directory: Path, stem: str) -> list[Variant]:
        found = optimize_for_cpu(graph.model, tower.embedding_output, tower.longest_text)
        applied = [name for name, count in found.items() if count]
        if not applied:
            self.say(NOT_REWRITTEN)
            return []
        self.say(f"rewritten for the CPU: {', '.join(applied)}")
        blank = unwritten(f"{FP32}-cpu", stem, "_cpu", "cpu", tower.modality)
        return [write_graph(graph.model, directory, blank)]

    def manifest(
        self,
        towers: Sequence[Tower],
        dim: int,
        variants: Sequence[Variant],
        directory: Path,
        first: Sequence[Found],
        files: Sequence[str],
    ) -> Manifest:
        """The manifest of a bundle that nothing was compared with yet.

        Args:
            towers: The towers.
            dim: The number of elements of an item's vector.
            variants: The graphs.
            directory: The directory of the bundle.
            first: The first graph of each tower.
            files: The names of the other files that the runtime reads.
        """
        graphs = dict.fromkeys(found.path for found in first)
        weights = self.origin.weights_sha256() if self.weights else sha256_over(graphs)
        return Manifest(
            source=Source(
                model=self.origin.public_name,
                revision=self.origin.revision,
                weights_sha256=weights,
                remote_code=self.overrides.trust_remote_code,
            ),
            packages={name: version(name) for name in PACKAGES},
            model_type=self.model_type,
            dim=dim,
            matryoshka_dims=(),
            towers=tuple(towers),
            files={name: record_of(directory / name) for name in files},
            variants=tuple(variants),
            fmrt_version=__version__,
            reference=NOBODY,
        )

    def check(
        self,
        manifest: Manifest,
        directory: Path,
        references: Mapping[str, Reference],
        probes: Sequence[Probe],
    ) -> None:
        """Compare each variant with the reference, where there is one, and write the manifest.

        Args:
            manifest: The manifest that nothing was compared for yet.
            directory: The directory of the bundle.
            references: The reference of each tower by its modality; empty where there is none.
            probes: The items of each tower that tell what a batch does.

        Raises:
            ExportError: The first graph of a tower does not give the reference's vectors.
        """
        if references:
            path = directory / REFERENCE_FILE
            write_references(references, {}, manifest.towers, path)
            files = {**manifest.files, REFERENCE_FILE: record_of(path)}
            whose = PYTORCH if self.weights else OWN_GRAPH
            manifest = dataclasses.replace(manifest, files=files, reference=whose)
        kept: list[Variant] = []
        for probe in probes:
            own = tuple(v for v in manifest.variants if v.modality == probe.modality)
            bundle = Bundle(directory, dataclasses.replace(manifest, variants=own))
            kept += Checker(bundle, self.origin.name, self.say, probe).kept()
        dataclasses.replace(manifest, variants=tuple(kept)).write(directory)


def save_bare(model: ir.Model, directory: Path, of: str = "") -> Path:
    """Write a graph as it was given, to be run while the bundle is made.

    Args:
        model: The graph.
        directory: The directory of the bundle.
        of: The graph's tower, where there are several.
    """
    path = directory / f"{BARE}{of}.onnx"
    ir.save(model, path, external_data=f"{path.name}_data")
    return path


def drop_bare(directory: Path) -> None:
    """Remove what `save_bare` wrote."""
    for file in directory.glob(f"{BARE}*"):
        file.unlink()
