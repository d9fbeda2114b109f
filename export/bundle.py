"""The export from end to end: a model becomes a verified bundle, or nothing is left behind."""

from __future__ import annotations

import dataclasses
import inspect
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
import torch

from export.heads import TextEmbedding
from export.layout import write_configuration, write_graph
from export.reference import make_reference, write_reference
from export.rewrite import optimize_for_cpu
from export.source import Overrides, TextSource, load_text_source, weights_sha256
from export.trace import OPSETS, PROMPT_LENGTH, trace
from fmrt._version import __version__
from fmrt.bundle import Bundle, record_of
from fmrt.engine import Engine
from fmrt.errors import ExportError, OptionError
from fmrt.manifest import MANIFEST_FILE, REFERENCE_FILE, Manifest, Source, Variant
from fmrt.verify import check

Report = Callable[[str], None]

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
)
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("last_hidden_state", "sentence_embedding")
TOKENIZER_FILE = "tokenizer.json"
PORTABLE = Variant("fp32", "onnx/model.onnx", "any", "fp32", "", 0)
FUSED_CPU = Variant("fp32-cpu", "onnx/model_cpu.onnx", "cpu", "fp32", "", 0)
# Two texts of different length: the example batch has padding, and neither axis has size 1.
EXAMPLE = ("An example of a text that a tokenizer splits.", "Another, shorter.")


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    opset: int | None = None,
    revision: str | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    report: Report | None = None,
) -> Bundle:
    """Export a text embedding model to a bundle, verified against PyTorch.

    Args:
        model: hub id or local directory, of a sentence-transformers model or a plain encoder.
        out: directory of the bundle; it appears there only when complete and verified.
        pooling: ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``, ``weightedmean`` or
            ``lasttoken``, or several joined with ``+``; default as the model says.
        normalize: whether to end in L2 normalization; default as the model says.
        max_length: most tokens of a text, special tokens included; default as the model says.
        opset: ONNX opset version; default the converter's own.
        revision: branch, tag or commit of a hub model.
        device: torch device of the conversion, e.g. ``cuda``.
        overwrite: whether ``out`` may replace a bundle.
        report: takes lines that say what was chosen and what is being done.

    Raises:
        ExportError: the model cannot be exported, or its graph does not give PyTorch's vectors.
        OptionError: an option that makes no sense, or not for this model.
    """
    target = Path(out)
    _check_target(target, overwrite)
    if opset is not None and opset not in OPSETS:
        raise OptionError(f"opset {opset}; choose from {OPSETS.start} to {OPSETS.stop - 1}")
    say = report or (lambda _: None)
    say(f"loading {model}")
    source = load_text_source(model, revision, device, Overrides(pooling, normalize, max_length))
    for choice in source.choices:
        say(f"  {choice}")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _write(source, partial, opset, say)
        _put_in_place(partial, target)
    except OSError as e:
        raise ExportError(f"cannot write {target}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.open(target)


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


def _write(source: TextSource, directory: Path, opset: int | None, say: Report) -> None:
    say("embedding the reference texts in PyTorch")
    write_reference(make_reference(source), directory / REFERENCE_FILE)
    say("converting to ONNX")
    inputs = example_batch(source)
    graph = trace(TextEmbedding(source).eval(), inputs, opset)
    variants = [write_graph(graph, directory, PORTABLE)]
    optimize_for_cpu(graph)
    variants.append(write_graph(graph, directory, FUSED_CPU))
    write_configuration(source, directory, variants)
    bundle = Bundle(directory, _manifest(source, graph, directory, variants))
    bundle.manifest.write(directory)
    _verified(bundle, say).write(directory)


def example_batch(source: TextSource) -> dict[str, torch.Tensor]:
    """An example batch of the inputs that both the tokenizer and the model know."""
    tokenizer = source.model.tokenizer
    device = source.model.device
    taken = inspect.signature(source.transformer.auto_model.forward).parameters
    names = [name for name in TOKEN_INPUTS if name in tokenizer.model_input_names and name in taken]
    batch = tokenizer(list(EXAMPLE), padding=True, return_tensors="pt")
    inputs = {name: batch[name].to(device) for name in names}
    if not source.pooling.include_prompt:
        inputs[PROMPT_LENGTH] = torch.zeros(1, dtype=torch.int64, device=device)
    return inputs


def _manifest(
    source: TextSource, graph: ir.Model, directory: Path, variants: list[Variant]
) -> Manifest:
    config = source.transformer.auto_model.config
    tokenizer = source.model.tokenizer
    dims = getattr(config, "matryoshka_dimensions", None) or ()
    return Manifest(
        source=Source(source.name, source.revision, weights_sha256(source.path)),
        packages={name: version(name) for name in PACKAGES},
        model_type=config.model_type,
        modality="text",
        inputs=tuple(str(value.name) for value in graph.graph.inputs),
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        dim=int(source.model.get_embedding_dimension()),
        max_length=source.max_length,
        pad_token_id=tokenizer.pad_token_id,
        truncation_side=tokenizer.truncation_side,
        pooling="+".join(source.pooling_modes),
        normalize=source.normalize,
        prompts=dict(source.model.prompts),
        default_prompt_name=source.model.default_prompt_name,
        include_prompt=source.pooling.include_prompt,
        matryoshka_dims=tuple(dims),
        files={name: record_of(directory / name) for name in (TOKENIZER_FILE, REFERENCE_FILE)},
        variants=tuple(variants),
        fmrt_version=__version__,
    )


def _verified(bundle: Bundle, say: Report) -> Manifest:
    """The manifest with each variant's parity, as measured with the runtime.

    A fused variant that fails is left out, and the user told; the portable one must pass.
    """
    kept: list[Variant] = []
    reference = bundle.reference()
    for variant in bundle.manifest.variants:
        engine = Engine(bundle, variant.name)
        try:
            result = check(engine, reference)
        finally:
            engine.close()
        parity = result.parity
        verdict = (
            f"{variant.name}: max abs error {parity.max_abs_error:.1e}, "
            f"worst cosine {parity.min_cosine:.6f}"
        )
        if result.passed:
            kept.append(dataclasses.replace(variant, parity=parity))
            say(f"verified {verdict}")
        elif variant.provider == "any":
            raise ExportError(f"the graph does not give PyTorch's vectors ({verdict}); no bundle")
        else:
            (bundle.path / variant.file).unlink()
            say(f"left out {verdict}: not PyTorch's vectors")
    return dataclasses.replace(bundle.manifest, variants=tuple(kept))
