"""The export from end to end: a model becomes a verified bundle, or nothing is left behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle, record_of
from fmrt.bundle.card import write_card
from fmrt.bundle.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    Manifest,
    Source,
    Variant,
)
from fmrt.errors import (
    ExportError,
    FmrtError,
    OptionError,
    QuantizationError,
    quoted,
)
from fmrt.export.choices import PATCH, POOLED, Overrides, Report
from fmrt.export.graphs import GraphWriter
from fmrt.export.load import load_model
from fmrt.export.loading.adapter import merge
from fmrt.export.loading.pretrained import first_line
from fmrt.export.part import Loaded, TowerPart
from fmrt.export.precision import full_precision
from fmrt.export.quantize import MIN_COSINE, check_quality, named_schemes, quantize_bundle
from fmrt.export.trace import OPSETS
from fmrt.export.verification import verified
from fmrt.export.writing.local_paths import remove_local_paths
from fmrt.export.writing.reference import write_references
from fmrt.export.writing.source_card import copy_licences, read_source_card
from fmrt.options import checked, file_path, number

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
OUTPUTS = (POOLED, PATCH)


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    output: str = POOLED,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    adapter: str | Path | Sequence[tuple[str | Path, float]] = (),
    opset: int | None = None,
    revision: str | None = None,
    device: str = "cpu",
    quantize: str | Sequence[str] = (),
    min_cosine: float = MIN_COSINE,
    calibration: str | Path | None = None,
    cuda: bool = False,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    report: Report | None = None,
) -> Bundle:
    """Export an embedding model of texts, images or sounds to a bundle, verified against PyTorch.

    Args:
        model: Hub id or local directory, of a sentence-transformers or transformers model.
        out: Directory of the bundle; it appears there only when complete and verified.
        output: ``pooled`` for one vector per item, or ``patch`` for one vector per patch of an
            image.
        pooling: The pooling of texts ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``,
            ``weightedmean`` or ``lasttoken``, or several joined with ``+``; of images ``cls``,
            ``mean`` or ``pooler``; default as the model says.
        normalize: Whether to end in L2 normalization; default as the model says.
        max_length: Most tokens of a text, special tokens included, or seconds of a sound; default
            as the model says.
        adapter: A PEFT adapter's directory or hub id to merge into the weights, or several with
            the weight of each: the changes add up.
        opset: ONNX opset version; default the converter's own.
        revision: Branch, tag or commit of a hub model.
        device: torch device of the conversion, e.g. ``cuda``.
        quantize: Schemes of quantized variants to add, as of `quantize_bundle`; the bundle is at
            ``out`` before, and each is added as soon as it has passed.
        min_cosine: The min cosine, as of `quantize_bundle`.
        calibration: The calibration, as of `quantize_bundle`.
        cuda: Whether to add variants in fp32, fp16 and bf16 for GPUs, of encoders of texts in fp16
            without padding too; checked on a GPU where there is one, else on the CPU as far as it
            can run them.
        trust_remote_code: Whether Python files of the model's directory may run, with your rights,
            where the model's type or modules are not a library's own. Read them first.
        overwrite: Whether ``out`` may replace a bundle.
        report: Takes lines that say what was chosen and what is being done.

    Raises:
        ExportError: The model cannot be exported, or its graph does not give PyTorch's vectors.
        QuantizationError: A quantized variant is not good enough; the bundle is at ``out``, with
            the others.
        OptionError: An option that makes no sense, or not for this model.
    """
    target = Path(file_path("out", out))
    file_path("model", model)
    checked(output=output, pooling=pooling, revision=revision, device=device, report=report)
    normalize, cuda, overwrite = checked(normalize=normalize, cuda=cuda, overwrite=overwrite)
    (trust_remote_code,) = checked(trust_remote_code=trust_remote_code)
    max_length, opset = checked(max_length=max_length, opset=opset)
    adapters = _adapters(adapter)
    schemes = named_schemes(quantize) if quantize else []
    check_quality(min_cosine, calibration)
    _check_target(target, overwrite)
    if opset is not None and opset not in OPSETS:
        raise OptionError(f"opset {opset}; choose from {OPSETS.start} to {OPSETS.stop - 1}")
    if output not in OUTPUTS:
        raise OptionError(f"output {output!r}; choose from: {', '.join(OUTPUTS)}")
    say = report or (lambda _: None)
    say(f"loading {model}")
    overrides = Overrides(
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        output=output,
        trust_remote_code=trust_remote_code,
    )
    with _refusing(f"{model} cannot be loaded, or does not run on its main input alone"):
        loaded = load_model(str(model), revision, device, overrides, adapters)
    stated, licence = read_source_card(loaded)
    for choice in (*loaded.choices, licence):
        say(f"  {choice}")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        with full_precision():
            _write(loaded, partial, opset, say, cuda=cuda)
        copy_licences(loaded.origin.path, partial)
        write_card(Bundle.open(partial), stated)
        _put_in_place(partial, target)
    except OSError as e:
        raise ExportError(f"cannot write {target}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not schemes:
        return Bundle.open(target)
    try:
        return quantize_bundle(
            target, schemes, min_cosine=min_cosine, calibration=calibration, report=say
        )
    except QuantizationError as e:
        names = [variant.name for variant in Bundle.open(target).manifest.variants]
        raise QuantizationError(
            f"{target} is exported, but {e}", target, names, e.refused
        ) from None


def _adapters(given: str | Path | Sequence[tuple[str | Path, float]]) -> list[tuple[str, float]]:
    """Each adapter with its weight.

    Raises:
        OptionError: No such list.
    """
    pairs = [(given, 1.0)] if isinstance(given, str | Path) else given
    try:
        return [(str(file_path("adapter", a)), number("weight", weight)) for a, weight in pairs]
    except (TypeError, ValueError) as e:
        if isinstance(e, OptionError):
            raise
        raise OptionError(
            f"adapter={quoted(given)}; give a directory or hub id, or a list of (adapter, weight)"
        ) from None


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse, before any work, a target that would be an error at its end."""
    if not target.exists():
        return
    if not target.is_dir():
        raise OptionError(f"{target} is a file; give a directory")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST_FILE).is_file():
        raise OptionError(f"{target} is not empty and not a bundle; give another directory")
    if not overwrite:
        raise OptionError(f"{target} holds a bundle; say --overwrite or give another directory")


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename onto the target; a bundle there is moved aside first and put back on failure."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f"{target.name}.old-{os.getpid()}")
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _write(loaded: Loaded, directory: Path, opset: int | None, say: Report, *, cuda: bool) -> None:
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
    say("converting to ONNX")
    write = GraphWriter(directory, loaded.model_type, opset, cuda=cuda)
    variants = [variant for part in parts for variant in write.tower(part)]
    written = [write.head(part) for part in heads]
    loaded.write_configuration(directory, [*variants, *(v for h in written for v in h.variants)])
    remove_local_paths(directory)
    manifest = _manifest(loaded, parts, directory, variants)
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
    loaded: Loaded, parts: Sequence[TowerPart], directory: Path, variants: Sequence[Variant]
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
        packages={name: version(name) for name in PACKAGES},
        model_type=loaded.model_type,
        dim=dim,
        matryoshka_dims=loaded.matryoshka_dims,
        towers=tuple(part.tower for part in parts),
        files={name: record_of(directory / name) for name in (*loaded.files, REFERENCE_FILE)},
        variants=tuple(variants),
        fmrt_version=__version__,
    )
