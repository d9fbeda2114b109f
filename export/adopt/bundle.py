"""The adoption from end to end: graphs that others made become a bundle, or nothing is left."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle, Reference, record_of
from fmrt.bundle.card import write_card
from fmrt.bundle.checked import sha256
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
from fmrt.errors import ExportError, OptionError
from fmrt.export.adopt.checking import Checker, own_reference
from fmrt.export.adopt.graph import EMBEDDING, IDS, MASK, STATES, TYPES, Adopted, read_graph
from fmrt.export.adopt.joining import attach, make_head
from fmrt.export.adopt.layout import Found, Layout, find_layout
from fmrt.export.adopt.source import (
    check_text_model,
    has_weights,
    load_source,
    open_graph,
    run_graph,
)
from fmrt.export.bundle import PACKAGES
from fmrt.export.choices import Choice, Overrides, Report, yes_or_no
from fmrt.export.graph_file import unwritten, write_graph
from fmrt.export.graphs import NOT_REWRITTEN
from fmrt.export.loading.directory import MODULES_FILE
from fmrt.export.loading.fetching import Origin, fetch
from fmrt.export.precision import full_precision
from fmrt.export.rewrite import optimize_for_cpu
from fmrt.export.text.configuration import write_text_configuration
from fmrt.export.text.padding import find_padding
from fmrt.export.text.source import TextSource
from fmrt.export.text.tower import PROMPT_LENGTH, pytorch_reference, text_tower
from fmrt.export.writing.local_paths import remove_local_paths
from fmrt.export.writing.place import check_target, placed
from fmrt.export.writing.reference import write_references
from fmrt.export.writing.source_card import copy_licences, read_source_card
from fmrt.options import checked, file_path
from fmrt.preprocess import TOKENIZER_FILE

FP32 = "fp32"
# The first graph as it was given, while the bundle is written.
BARE = ".adopted.onnx"
UNIT = 1e-3


def adopt_onnx(
    graphs: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    record_reference: bool = False,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    report: Report | None = None,
) -> Bundle:
    """Make a bundle of ONNX graphs of a text embedding model that another tool exported.

    Args:
        graphs: Directory or hub id with one model's graphs and its tokenizer, or the file of a
            graph.
        out: Directory of the bundle; it appears there only when complete.
        model: Directory or hub id of the PyTorch model that the graphs were made from, whose
            vectors they are compared with; default the weights next to the graphs, where there are.
        pooling: The pooling, as of `export_model`; default as the model says.
        normalize: Whether to end in L2 normalization; default as the model says.
        max_length: Most tokens of a text; default as the model says.
        revision: Branch, tag or commit of ``graphs`` on the hub.
        record_reference: Whether, without weights, the fp32 graph's own vectors become what its
            quantized siblings are compared with.
        trust_remote_code: Whether Python files of the model's directory may run, with your rights.
        overwrite: Whether ``out`` may replace a bundle.
        report: Takes lines that say what was chosen and what is being done.

    Raises:
        ExportError: The graphs cannot be adopted, or do not give the model's vectors.
        OptionError: An option that makes no sense, or not for this model.
    """
    target = Path(file_path("out", out))
    file_path("graphs", graphs)
    if model is not None:
        file_path("model", model)
    checked(pooling=pooling, revision=revision, report=report)
    normalize, overwrite = checked(normalize=normalize, overwrite=overwrite)
    (trust,) = checked(trust_remote_code=trust_remote_code)
    (record,) = checked(record_reference=record_reference)
    (max_length,) = checked(max_length=max_length)
    check_target(target, overwrite)
    say = report or (lambda _: None)
    overrides = Overrides(
        pooling=pooling, normalize=normalize, max_length=max_length, trust_remote_code=trust
    )
    given = fetch(str(graphs), revision, graphs=True)
    layout = find_layout(given.path, given.name)
    origin = _origin(given, layout, model)
    config = check_text_model(origin, trust)
    if record and has_weights(origin.path):
        raise OptionError("--record-reference is for graphs without weights, and these have some")
    adoption = _Adoption(layout, origin, overrides, str(config.model_type), record, say)
    _write(adoption, target)
    return Bundle.open(target)


def _write(adoption: _Adoption, target: Path) -> None:
    """Write the bundle, and put it in its place when it is complete."""
    origin = adoption.origin
    with placed(target) as partial:
        with full_precision():
            adoption.write(partial)
        copy_licences(origin.path, partial)
        stated, _ = read_source_card(origin)
        write_card(adoption.bundle(partial), stated)


def _origin(given: Origin, layout: Layout, model: str | Path | None) -> Origin:
    """The model's directory: the one named, or that of the graphs.

    Raises:
        ExportError: The one named has no weights.
    """
    if model is None:
        return Origin(given.name, layout.root, given.revision)
    named = fetch(str(model), None)
    if not has_weights(named.path):
        raise ExportError(
            f"{model} has no weights of PyTorch, and so nothing to compare the graphs with; leave "
            "--model out to adopt them unverified"
        )
    return named


@dataclasses.dataclass
class _Adoption:
    """One run: what was read, and what has been written so far."""

    layout: Layout
    origin: Origin
    overrides: Overrides
    model_type: str
    record: bool
    say: Report

    def write(self, directory: Path) -> None:
        """Write the bundle, and check it."""
        read = self._read()
        first = next((pair for pair in read if pair[1].precision == FP32), read[0])
        read = [first, *(pair for pair in read if pair is not first)]
        bare = directory / BARE
        ir.save(first[1].model, bare, external_data=f"{BARE}_data")
        source, own = self._source(first[1], bare)
        tower = self._tower(source, [graph for _, graph in read], own=own, bare=bare)
        dim, width = _sizes(bare, source, own=own)
        variants = list(self._variants(read, tower, source, width, directory, own=own))
        for file in (bare, directory / f"{BARE}_data"):
            file.unlink(missing_ok=True)
        self._configure(source, directory, variants, stated=not own or self._weights)
        reference = pytorch_reference(source) if self._weights else None
        dim = dim if reference is None else reference.embeddings.shape[-1]
        manifest = self._manifest(tower, dim, variants, directory, first[0])
        self._check(manifest, directory, source, reference)

    def bundle(self, directory: Path) -> Bundle:
        """The bundle that was written, without its warning."""
        return Bundle(directory, Manifest.read(directory))

    @property
    def _weights(self) -> bool:
        return has_weights(self.origin.path)

    def _read(self) -> list[tuple[Found, Adopted]]:
        """Each graph that can be adopted; the others are said.

        Raises:
            ExportError: None can.
        """
        read: list[tuple[Found, Adopted]] = []
        refused: list[str] = []
        for found in self.layout.graphs:
            try:
                read.append((found, read_graph(found.path, self.layout.root)))
            except ExportError as e:
                refused.append(str(e))
        if not read:
            raise ExportError(refused[0])
        for why in refused:
            self.say(f"left out: {why}")
        for found, graph in read:
            made = f"{graph.model.producer_name or 'an unnamed tool'}"
            self.say(f"adopting {found.path.name}: {graph.precision}, made by {made}")
            for bound in graph.bound:
                self.say(f"  {bound}")
        return read

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
        if own and not self._weights:
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
            name = found.suffix or graph.precision
            name = name if name not in names else f"{name}-{len(names)}"
            names.add(name)
            if not own:
                attach(graph.model, make_head(source, width, graph.opset))
            _bind_to(graph.model, tower)
            provider = "any" if graph.standard else "cpu"
            suffix = "" if name == graph.precision == FP32 else f"_{name}"
            blank = unwritten(name, "model", suffix, provider, "text", graph.precision)
            yield write_graph(graph.model, directory, blank)
            if name == FP32 and (self._weights or self.record):
                yield from self._for_cpu(graph, tower, directory)

    def _for_cpu(self, graph: Adopted, tower: Tower, directory: Path) -> Iterator[Variant]:
        found = optimize_for_cpu(graph.model, EMBEDDING, tower.longest_text)
        applied = [name for name, count in found.items() if count]
        if not applied:
            self.say(NOT_REWRITTEN)
            return
        self.say(f"rewritten for the CPU: {', '.join(applied)}")
        blank = unwritten(f"{FP32}-cpu", "model", "_cpu", "cpu", "text")
        yield write_graph(graph.model, directory, blank)

    def _configure(
        self, source: TextSource, directory: Path, variants: Sequence[Variant], *, stated: bool
    ) -> None:
        if not self._weights:  # the class of the configuration, not what stands in for it
            source.transformer.model = source.transformer.auto_model.shape
        write_text_configuration(source, directory, variants)
        if not stated and not (self.origin.path / MODULES_FILE).is_file():
            # Which pooling the graph has is not known: others must not read one that is made up.
            (directory / MODULES_FILE).unlink()
            shutil.rmtree(directory / "1_Pooling")
        remove_local_paths(directory)

    def _manifest(
        self, tower: Tower, dim: int, variants: Sequence[Variant], directory: Path, first: Found
    ) -> Manifest:
        weights = self.origin.weights_sha256() if self._weights else sha256(first.path)
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
            towers=(tower,),
            files={TOKENIZER_FILE: record_of(directory / TOKENIZER_FILE)},
            variants=tuple(variants),
            fmrt_version=__version__,
            reference=NOBODY,
        )

    def _check(
        self, manifest: Manifest, directory: Path, source: TextSource, reference: Reference | None
    ) -> None:
        """Compare each variant with the reference, where there is one, and write the manifest."""
        checker = Checker(Bundle(directory, manifest), self.origin.name, self.say)
        whose = PYTORCH
        if reference is None and self.record:
            whose = OWN_GRAPH
            reference = own_reference(checker.bundle, source)
        if reference is not None:
            path = directory / REFERENCE_FILE
            write_references({"text": reference}, {}, manifest.towers, path)
            files = {**manifest.files, REFERENCE_FILE: record_of(path)}
            manifest = dataclasses.replace(manifest, files=files, reference=whose)
            checker = Checker(Bundle(directory, manifest), self.origin.name, self.say)
        kept = checker.kept()
        dataclasses.replace(manifest, variants=kept).write(directory)


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


def _bind_to(model: ir.Model, tower: Tower) -> None:
    """Give a graph the tower's inputs and outputs, in place."""
    graph = model.graph
    found = {str(value.name): value for value in graph.inputs}
    for name in tower.inputs:
        if name not in found:
            graph.inputs.append(_tokens_like(name, found[IDS]))
    if TYPES in found and TYPES not in tower.inputs:
        zeros = ir.node("Sub", [found[IDS], found[IDS]])
        found[TYPES].replace_all_uses_with(zeros.outputs[0])
        graph.inputs.remove(found[TYPES])
        graph.insert_before(next(iter(graph)), [zeros])
    for value in list(graph.outputs):
        if value.name not in tower.outputs:
            graph.outputs.remove(value)


def _tokens_like(name: str, ids: ir.Value) -> ir.Value:
    return ir.Value(name=name, shape=ids.shape, type=ir.TensorType(ir.DataType.INT64))
