"""The export from end to end: a model becomes a verified bundle, or nothing is left behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from fmrt._version import __version__
from fmrt.bundle import Bundle, record_of
from fmrt.card import write_card
from fmrt.errors import (
    ExportError,
    FmrtError,
    OptionError,
    ProviderError,
    QuantizationError,
    quoted,
)
from fmrt.export.adapter import merge
from fmrt.export.graph_file import write_graph
from fmrt.export.load import load_model
from fmrt.export.local_paths import public_name, remove_local_paths
from fmrt.export.part import Loaded, Part
from fmrt.export.precision import full_precision
from fmrt.export.quantize import MIN_COSINE, check_quality, named_schemes, quantize_bundle
from fmrt.export.reference import write_references
from fmrt.export.rewrite import optimize_for_cpu, optimize_for_cuda, pack_for_cuda
from fmrt.export.rewrite.half import HALF_TYPES, to_half
from fmrt.export.source import Overrides, first_line, weights_sha256
from fmrt.export.source_card import copy_licences, read_source_card
from fmrt.export.task_head import verified_heads, write_head
from fmrt.export.trace import OPSETS, trace
from fmrt.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    Manifest,
    Parity,
    Source,
    Variant,
)
from fmrt.options import checked, file_path, number
from fmrt.session import resolve_provider
from fmrt.verify import check, checking_engine

Report = Callable[[str], None]

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
OUTPUTS = ("pooled", "patch")
PORTABLE = ("fp32", "", "any")
FUSED_CPU = ("fp32-cpu", "_cpu", "cpu")
# Precisions of which a GPU gets a graph without padding too, where that can be had.
PACKED = ("fp16",)


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    output: str = "pooled",
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
        model: hub id or local directory, of a sentence-transformers or transformers model.
        out: directory of the bundle; it appears there only when complete and verified.
        output: ``pooled`` for a vector an item, or ``patch`` for a vector a patch of an image.
        pooling: of texts ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``, ``weightedmean`` or
            ``lasttoken``, or several joined with ``+``; of images ``cls``, ``mean`` or ``pooler``;
            default as the model says.
        normalize: whether to end in L2 normalization; default as the model says.
        max_length: most tokens of a text, special tokens included, or seconds of a sound; default
            as the model says.
        adapter: a PEFT adapter's directory or hub id to merge into the weights, or several with
            the weight of each: the changes add up.
        opset: ONNX opset version; default the converter's own.
        revision: branch, tag or commit of a hub model.
        device: torch device of the conversion, e.g. ``cuda``.
        quantize: schemes of quantized variants to add, as of `quantize_bundle`; the bundle is at
            ``out`` before, and each is added as soon as it has passed.
        min_cosine: as of `quantize_bundle`.
        calibration: as of `quantize_bundle`.
        cuda: whether to add variants in fp32, fp16 and bf16 for GPUs, of encoders of texts in fp16
            without padding too; checked on a GPU where there is one, else on the CPU as far as it
            can run them.
        trust_remote_code: whether Python files of the model's directory may run, with your rights,
            where the model's type or modules are not a library's own. Read them first.
        overwrite: whether ``out`` may replace a bundle.
        report: takes lines that say what was chosen and what is being done.

    Raises:
        ExportError: the model cannot be exported, or its graph does not give PyTorch's vectors.
        QuantizationError: a quantized variant is not good enough; the bundle is at ``out``, with
            the others.
        OptionError: an option that makes no sense, or not for this model.
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
    overrides = Overrides(pooling, normalize, max_length, output, trust_remote_code)
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
        copy_licences(loaded.path, partial)
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
        OptionError: no such list.
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
    variants: list[Variant] = []
    for part in parts:
        graph = trace(part, loaded.model_type, opset)
        variants.append(write_graph(graph, directory, _variant(part, *PORTABLE)))
        if cuda:
            variants += _cuda_variants(graph, part, directory)
        optimize_for_cpu(graph, part.tower.embedding_output, part.tower.longest_text)
        variants.append(write_graph(graph, directory, _variant(part, *FUSED_CPU)))
    written = [write_head(part, loaded.model_type, directory, opset) for part in heads]
    loaded.write_configuration(directory, [*variants, *(v for h in written for v in h.variants)])
    remove_local_paths(directory)
    manifest = _manifest(loaded, parts, directory, variants)
    bundle = Bundle(directory, dataclasses.replace(manifest, heads=tuple(written)))
    bundle.manifest.write(directory)
    towers = Bundle(directory, _verified(bundle, say))
    verified_heads(towers, say).write(directory)


@contextmanager
def _refusing(why: str) -> Iterator[None]:
    """Whatever a model of an unknown kind raises becomes a refusal in one line."""
    try:
        yield
    except FmrtError:
        raise
    except Exception as e:
        raise ExportError(f"{why}: {first_line(e)}") from e


def _variant(
    part: Part,
    name: str,
    suffix: str,
    provider: str,
    precision: str = "fp32",
    *,
    packed: bool = False,
) -> Variant:
    file = f"onnx/{part.stem}{suffix}.onnx"
    return Variant(name, file, provider, precision, "", 0, part.tower.modality, packed=packed)


def _cuda_variants(portable: ir.Model, part: Part, directory: Path) -> list[Variant]:
    """Write the graphs for GPUs; the portable one stays as it is."""
    fused = portable.clone()
    optimize_for_cuda(fused)
    written = []
    for precision in ("fp32", *HALF_TYPES):
        graph = fused.clone()
        if precision in HALF_TYPES:
            to_half(graph, precision)
        name, suffix = f"{precision}-cuda", f"_{precision}_cuda"
        written.append(
            write_graph(graph, directory, _variant(part, name, suffix, "cuda", precision))
        )
        if precision in PACKED and pack_for_cuda(graph):
            names = f"{name}-packed", f"{suffix}_packed"
            packed = _variant(part, *names, "cuda", precision, packed=True)
            written.append(write_graph(graph, directory, packed))
    return written


def _manifest(
    loaded: Loaded, parts: Sequence[Part], directory: Path, variants: Sequence[Variant]
) -> Manifest:
    (dim,) = {part.reference.embeddings.shape[-1] for part in parts}
    return Manifest(
        source=Source(
            public_name(loaded.name, loaded.path),
            loaded.revision,
            weights_sha256(loaded.path),
            tuple(adapter.record() for adapter in loaded.adapters),
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


def _verified(bundle: Bundle, say: Report) -> Manifest:
    """The manifest with each variant's parity, as measured with the runtime.

    A fused variant that fails is left out, and the user told; the portable one must pass.
    """
    kept: list[Variant] = []
    several = len(bundle.manifest.towers) > 1
    for variant in bundle.manifest.variants:
        of = f"{variant.name} ({variant.modality})" if several else variant.name
        target = _checked_on(variant)
        passed, parity, verdict = _checked(bundle, variant, target)
        if passed:
            kept.append(dataclasses.replace(variant, parity=parity, checked_on=target))
            say(f"verified {of}: {verdict}")
        elif passed is None:
            kept.append(variant)
            say(
                f"kept {of} unmeasured, as the CPU cannot run it; on a GPU: "
                "fmrt verify BUNDLE --provider cuda --record"
            )
        elif variant.provider == "any":
            raise ExportError(f"the graph does not give PyTorch's vectors ({of}: {verdict})")
        else:
            (bundle.path / variant.file).unlink()
            say(f"left out {of}: not PyTorch's vectors ({verdict})")
    return dataclasses.replace(bundle.manifest, variants=tuple(kept))


def _checked_on(variant: Variant) -> str:
    """The provider to check a variant on: its own, or the CPU where there is no GPU."""
    if variant.provider != "cuda":
        return "cpu"
    try:
        return resolve_provider("cuda").name
    except ProviderError:
        return "cpu"


def _checked(
    bundle: Bundle, variant: Variant, target: str
) -> tuple[bool | None, Parity | None, str]:
    """Whether a variant passes, what was measured, and both in words.

    None when ``target`` stands in for the variant's own provider and has not its operators.
    """
    try:
        free = dataclasses.replace(variant, provider="any")
        alone = Bundle(bundle.path, dataclasses.replace(bundle.manifest, variants=(free,)))
        engine = checking_engine(alone, free, target)
        try:
            result = check(engine, bundle.reference(variant.modality))
        finally:
            engine.close()
    except ProviderError as e:
        passed = False if variant.provider in ("any", target) else None
        return passed, None, first_line(e).replace(f"{bundle.path}/", "")
    except Exception as e:  # a graph that ONNX Runtime does not load, or not run
        return False, None, first_line(e).replace(f"{bundle.path}/", "")
    parity = result.parity
    words = f"max abs error {parity.max_abs_error:.1e}, worst cosine {parity.min_cosine:.6f}"
    return result.passed, parity, words
