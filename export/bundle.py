"""The export from end to end: a model becomes a verified bundle, or nothing is left of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle, record_of
from fmrt.bundle.card import write_card
from fmrt.bundle.manifest import (
    REFERENCE_FILE,
    Manifest,
    Source,
    Variant,
)
from fmrt.embed_options import takes_options
from fmrt.errors import ExportError, FmrtError, QuantizationError
from fmrt.export.choices import Report
from fmrt.export.graphs import GraphWriter
from fmrt.export.load import load_model
from fmrt.export.loading.adapter import merge
from fmrt.export.loading.pretrained import first_line
from fmrt.export.options import ExportOptions
from fmrt.export.part import Loaded, TowerPart
from fmrt.export.precision import full_precision
from fmrt.export.quantize import quantize_bundle
from fmrt.export.trace import exporter
from fmrt.export.verification import verified
from fmrt.export.writing.local_paths import remove_local_paths
from fmrt.export.writing.place import check_target, placed
from fmrt.export.writing.reference import write_references
from fmrt.export.writing.source_card import copy_licences, read_source_card
from fmrt.options import checked, file_path

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "tokenizers",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
)


@partial(takes_options, kind=ExportOptions)
def export_model(
    model: str | Path, out: str | Path, *, report: Report | None = None, **options: Any
) -> Bundle:
    """Export an embedding model of texts, images or sounds to a bundle, verified against PyTorch.

    Args:
        model: The hub id or local directory of a sentence-transformers or transformers model.
        out: The directory of the bundle; it appears there only when complete and verified.
        report: A function that takes lines that say what was chosen and what is being done.
        options: The fields of `ExportOptions`.

    Raises:
        ExportError: The model cannot be exported, or its graph does not give PyTorch's vectors.
        QuantizationError: A quantized variant is not good enough; the bundle is at ``out``, with
            the others.
        OptionError: An option that makes no sense, or not for this model.
    """
    target = Path(file_path("out", out))
    file_path("model", model)
    checked(report=report)
    asked = ExportOptions(**options)
    check_target(target, asked.overwrite)
    exporter(asked.exporter)  # before a model is fetched and loaded
    say = report or (lambda _: None)
    loaded = _loaded(str(model), asked, say)
    _export(loaded, target, asked, say)
    return _quantized(target, asked, say) if asked.schemes else Bundle.open(target)


def _loaded(model: str, asked: ExportOptions, say: Report) -> Loaded:
    """The model in PyTorch."""
    say(f"loading {model}")
    with _refusing(f"{model} cannot be loaded, or does not run on its main input alone"):
        return load_model(model, asked.revision, asked.device, asked.overrides, asked.adapters)


def _export(loaded: Loaded, target: Path, asked: ExportOptions, say: Report) -> None:
    """Write the bundle beside its place, and put it there when it is complete."""
    stated, licence = read_source_card(loaded.origin, loaded.adapters)
    for choice in (*loaded.choices, licence):
        say(f"  {choice}")
    with placed(target) as unfinished:
        with full_precision():
            _write(loaded, unfinished, asked, say)
        copy_licences(loaded.origin.path, unfinished)
        write_card(Bundle.open(unfinished), stated)


def _quantized(target: Path, asked: ExportOptions, say: Report) -> Bundle:
    """The bundle with the quantized variants that are asked for."""
    try:
        return quantize_bundle(
            target,
            asked.schemes,
            min_cosine=asked.min_cosine,
            calibration=asked.calibration,
            report=say,
        )
    except QuantizationError as e:
        names = [variant.name for variant in Bundle.open(target).manifest.variants]
        raise QuantizationError(
            f"{target} is exported, but {e}", target, names, e.refused
        ) from None


def _write(loaded: Loaded, directory: Path, asked: ExportOptions, say: Report) -> None:
    say("embedding the reference items in PyTorch")
    with _refusing(f"a {loaded.model_type} model does not run on its main input alone"):
        parts, heads = loaded.parts(), loaded.heads()
    write_references(
        {part.tower.modality: part.reference for part in parts},
        {part.head.task: part.reference for part in heads},
        [part.tower for part in parts],
        directory / REFERENCE_FILE,
    )
    if loaded.adapters:
        merge(loaded.backbone)
    by = exporter(asked.exporter)
    say(f"converting to ONNX through {by} {version(by)}")
    write = GraphWriter(directory, loaded.model_type, asked.opset, by, say, cuda=asked.cuda)
    variants = [variant for part in parts for variant in write.tower(part)]
    written = [write.head(part) for part in heads]
    loaded.write_configuration(directory, [*variants, *(v for h in written for v in h.variants)])
    remove_local_paths(directory)
    manifest = _manifest(loaded, parts, directory, variants, by)
    bundle = Bundle(directory, dataclasses.replace(manifest, heads=tuple(written)))
    bundle.manifest.write(directory)
    verified(bundle, say).write(directory)


@contextmanager
def _refusing(why: str) -> Iterator[None]:
    """Whatever a model of an unknown kind raises becomes a refusal in one line."""
    try:
        yield
    except FmrtError:
        raise
    except Exception as e:
        raise ExportError(f"{why}: {first_line(e)}") from e


def _manifest(
    loaded: Loaded,
    parts: Sequence[TowerPart],
    directory: Path,
    variants: Sequence[Variant],
    by: str,
) -> Manifest:
    (dim,) = {part.reference.embeddings.shape[-1] for part in parts}
    return Manifest(
        source=Source(
            model=loaded.origin.public_name,
            revision=loaded.origin.revision,
            weights_sha256=loaded.origin.weights_sha256(),
            adapters=tuple(adapter.record() for adapter in loaded.adapters),
            remote_code=loaded.remote_code,
        ),
        packages={name: version(name) for name in dict.fromkeys((*PACKAGES, by))},
        model_type=loaded.model_type,
        dim=dim,
        matryoshka_dims=loaded.matryoshka_dims,
        towers=tuple(part.tower for part in parts),
        files={name: record_of(directory / name) for name in (*loaded.files, REFERENCE_FILE)},
        variants=tuple(variants),
        fmrt_version=__version__,
        exporter=by,
    )
