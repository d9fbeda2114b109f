"""Makes a package of a bundle, from end to end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from fmrt.bundle.bundle import Bundle, record_of
from fmrt.bundle.manifest import Variant
from fmrt.embedding.engine import Engine
from fmrt.errors import ExportError, FmrtError, OptionError, said
from fmrt.export.graph_file import write_graph
from fmrt.export.package.card import write_card
from fmrt.export.package.ort_format import write_ort
from fmrt.export.package.tables import cut_tables
from fmrt.export.package.vocabulary import Cut, Wanted, cut_vocabulary, same_vectors
from fmrt.options import checked, file_path
from fmrt.system.archive import MOST_BYTES, SUFFIX, pack, unpack
from fmrt.verify import check

Report = Callable[[str], None]
# Small, and the same vectors on every processor: what a device takes where the bundle has it.
EDGE = "w8"
# Further files that other libraries read; none of them is large.
OTHERS = (
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "preprocessor_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "*_*/config.json",
    "LICENSE*",
)


@dataclasses.dataclass(frozen=True)
class _Form:
    """The options of a package's form, as `package_bundle` takes them."""

    single_file: bool
    compress: bool
    all_tokens: bool
    ort: bool


def package_bundle(
    bundle: str | Path,
    out: str | Path,
    *,
    single_file: bool = False,
    compress: bool = False,
    variant: str | Sequence[str] | None = None,
    vocabulary: str | Path | None = None,
    all_tokens: bool = False,
    ort: bool = False,
    revision: str | None = None,
    sha256: str | None = None,
    report: Report | None = None,
) -> Bundle:
    """Write the smallest set of files that embeds as a bundle does, verified and measured.

    Args:
        bundle: The directory of the bundle, its one file, or its hub id.
        out: The new directory or file, not there yet. A single file ends with ``.fmrt``, which is
            added to another name.
        single_file: Whether one file is written, whose weights are mapped into memory where they
            are.
        compress: Whether the content of the one file is deflated. The file is about a tenth
            smaller, and is unpacked into memory at each load instead of mapped.
        variant: The names or precisions of the variants to take, in a list or joined with commas;
            default ``w8``, whose vectors are the same on every processor, or in a bundle without it
            the one that the CPU takes unasked.
        vocabulary: A file with one text per line, or one token per line. The tokens that these need
            are kept, and no others. The other ids follow each other then.
        all_tokens: Whether tokens are kept too that no text can have; else these are dropped.
        ort: Whether ONNX Runtime's own format is written too, with the operators that it needs.
        revision: The branch, tag or commit of a bundle on the hub.
        sha256: The SHA-256 of the bundle's manifest; another bundle is refused.
        report: A function that takes lines that say what is being done.

    Returns:
        The package, which is a bundle.

    Raises:
        OptionError: An argument that makes no sense, or ``out`` is there already.
        BundleError: The bundle is missing or corrupt, or has no such variant.
        ExportError: The package cannot be written, or its vectors are others.
    """
    form = _form(single_file=single_file, compress=compress, all_tokens=all_tokens, ort=ort)
    checked(vocabulary=vocabulary, report=report)
    say = report or (lambda _: None)
    target = _target(out, single_file=form.single_file)
    source = Bundle.open(bundle, sha256, revision)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    wanted = Wanted(None if vocabulary is None else Path(vocabulary))
    try:
        (partial / "package").mkdir(parents=True)
        source = _unpacked(source, partial / "source", sha256)
        _written(source, partial, form, variant, wanted, say).rename(target)
    except OSError as e:
        raise ExportError(f"cannot write {target}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.open(target)


def _form(*, single_file: bool, compress: bool, all_tokens: bool, ort: bool) -> _Form:
    """The form that was asked for.

    Raises:
        OptionError: A value that makes no sense, or ``compress`` without ``single_file``.
    """
    single_file, compress, all_tokens, ort = checked(
        single_file=single_file, compress=compress, all_tokens=all_tokens, ort=ort
    )
    if compress and not single_file:
        raise OptionError("compress=True is for a single file: add --single-file")
    return _Form(single_file, compress, all_tokens, ort)


def _written(
    source: Bundle,
    partial: Path,
    form: _Form,
    names: str | Sequence[str] | None,
    wanted: Wanted,
    say: Report,
) -> Path:
    """Write, verify and measure a package in a folder; what is to take its name."""
    variants = chosen(source, names)
    whole = wanted.file is None and form.all_tokens
    cut = None if whole else cut_vocabulary(source, wanted, say)
    folder, single_file, compress = partial / "package", form.single_file, form.compress
    maker = _Maker(source, folder, say, single_file=single_file, compress=compress)
    made = maker.make(variants, cut)
    made = write_ort(made, say) if form.ort else made
    archive = partial / "package.fmrt" if single_file else None
    return _finished(made, source, cut, archive, compress=compress, say=say)


def _unpacked(source: Bundle, folder: Path, sha256: str | None) -> Bundle:
    """The bundle in a folder, if it is one file."""
    if source.archive is None:
        return source
    unpack(source.archive, folder)
    return Bundle.open(folder, sha256)


def _target(out: str | Path, *, single_file: bool) -> Path:
    target = Path(file_path("out", out))
    if single_file and target.suffix != SUFFIX:
        target = target.with_name(f"{target.name}{SUFFIX}")
    if not single_file and target.suffix == SUFFIX:
        raise OptionError(f"{target} is the name of a single file: add --single-file, or rename it")
    if target.exists() or target.is_symlink():
        raise OptionError(f"{target} is there already; give a new name")
    return target


def chosen(bundle: Bundle, names: str | Sequence[str] | None) -> list[Variant]:
    """The variants that were asked for, of every tower and head.

    Raises:
        VariantNotFoundError: The bundle has none of a name.
        OptionError: No name is given.
    """
    given = names.split(",") if isinstance(names, str) else names
    wanted: list[str | None] = [None]
    if given is not None:
        wanted = [str(name).strip() for name in given if str(name).strip()]
        if not wanted:
            raise OptionError("no variant is named; fmrt info lists them")
    elif all(_has(bundle, EDGE, modality) for modality in bundle.manifest.modalities):
        wanted = [EDGE]
    found = []
    for name in wanted:
        for modality in bundle.manifest.modalities:
            own = [v for v in bundle.manifest.variants if v.modality == modality]
            exact = [v for v in own if v.name == name]
            found.append(exact[0] if exact else bundle.variant(name, "cpu", modality))
    return [v for i, v in enumerate(found) if v not in found[:i]]


def _has(bundle: Bundle, name: str, modality: str) -> bool:
    return any((v.name, v.modality) == (name, modality) for v in bundle.manifest.variants)


class _Maker:
    """Writes the files of a package to a folder."""

    def __init__(
        self, source: Bundle, folder: Path, say: Report, *, single_file: bool, compress: bool
    ) -> None:
        self._source, self._folder, self._say = source, folder, say
        self._single_file, self._compress = single_file, compress

    def make(self, variants: Sequence[Variant], cut: Cut | None) -> Bundle:
        """Write all files but the card."""
        manifest, folder = self._source.manifest, self._folder
        self._copy_others()
        for name in manifest.files:
            self._copy(self._path(name), name)
        if cut is not None:
            manifest = cut.write(manifest, folder)
        written = tuple(self._graph(v, cut) for v in variants)
        heads = tuple(
            dataclasses.replace(
                head, variants=(self._graph(self._source.head_variant(head), None),)
            )
            for head in manifest.heads
        )
        files = {name: record_of(folder / name) for name in manifest.files}
        manifest = dataclasses.replace(manifest, variants=written, heads=heads, files=files)
        manifest.write(folder)
        return Bundle.open(folder)

    def _graph(self, variant: Variant, cut: Cut | None) -> Variant:
        path = self._source.graph(variant)
        assert isinstance(path, Path)  # noqa: S101  # an archive was unpacked
        self._say(f"writing {variant.name} of {variant.modality}s")
        try:
            model = ir.load(path)
            # Where each node was in the code that it was traced from takes up to 3% of 8 bits.
            ClearMetadataAndDocStringPass()(model)
            if cut is not None and variant.modality == "text":
                cut_tables(model, cut.kept)
            mapped = not self._compress and (self._single_file or bool(variant.external))
            if not mapped:
                ir.external_data.load_to_model(model)
            return write_graph(model, self._folder, variant, mapped=mapped)
        except (FmrtError, OSError, MemoryError):
            raise
        except Exception as e:  # whatever a graph of an unknown origin provokes
            raise ExportError(f"{variant.file} cannot be packaged: {said(e)}") from e

    def _path(self, name: str) -> Path:
        return self._source.path / name

    def _copy_others(self) -> None:
        for pattern in OTHERS:
            for path in sorted(self._source.path.glob(pattern)):
                if path.is_file():
                    self._copy(path, path.relative_to(self._source.path).as_posix())

    def _copy(self, path: Path, name: str) -> None:
        if name in self._source.manifest.files:
            self._source.file(name)
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json" and name != "fmrt.json":
            target.write_bytes(compact(path.read_bytes()))
        else:
            shutil.copyfile(path, target)


def compact(data: bytes) -> bytes:
    """JSON without spaces between its parts."""
    value: Any = json.loads(data)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _finished(
    made: Bundle,
    source: Bundle,
    cut: Cut | None,
    archive: Path | None,
    *,
    compress: bool,
    say: Report,
) -> Path:
    """Verify and measure a package; what is to take its name."""
    for variant in made.manifest.variants:
        if variant.provider in ("any", "cpu"):
            _verify(made, variant)
    if cut is not None:
        same_vectors(source, made, cut, say)
    if archive is None:
        write_card(made, source, made.path, say)
        return made.path
    _pack(made, archive, compress=compress)
    write_card(made, source, archive, say)
    _pack(made, archive, compress=compress)
    return archive


def _pack(made: Bundle, archive: Path, *, compress: bool) -> None:
    total = sum(path.stat().st_size for path in made.path.rglob("*") if path.is_file())
    if total > MOST_BYTES * 0.99:
        raise ExportError(
            f"{total:,} bytes are too many for a single file, which holds 4 GiB; take fewer "
            "variants, or leave --single-file out"
        )
    mapped = {name for variant in made.manifest.graphs for name in variant.external}
    pack(made.path, archive, lambda name: compress and name not in mapped)


def _verify(made: Bundle, variant: Variant) -> None:
    engine = Engine(made, variant.name, modality=variant.modality)
    try:
        report = check(engine, made.reference(variant.modality))
    finally:
        engine.close()
    if not report.passed:
        raise ExportError(
            f"the package's {variant.name} does not give PyTorch's vectors: worst cosine "
            f"{report.parity.min_cosine:.6f}"
        )
