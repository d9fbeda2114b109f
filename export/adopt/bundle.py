"""The adoption from end to end: graphs that others made become a bundle, or nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.card import write_card
from fmrt.errors import ExportError, FmrtError, OptionError, first_cause, is_failure
from fmrt.export.adopt.adoption import Adoption
from fmrt.export.adopt.graph import IDS
from fmrt.export.adopt.layout import Layout, find_layout
from fmrt.export.adopt.source import BOTH, check_model, has_weights
from fmrt.export.adopt.text import TextAdoption
from fmrt.export.choices import Overrides, Report
from fmrt.export.loading.fetching import Origin, fetch
from fmrt.export.precision import full_precision
from fmrt.export.writing.place import check_target, placed
from fmrt.export.writing.source_card import copy_licences, read_source_card
from fmrt.options import checked, file_path
from fmrt.system.extras import needing


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
    """Make a bundle of ONNX graphs of an embedding model that another tool exported.

    Args:
        graphs: The directory or hub id with one model's graphs and what prepares its items, or the
            file of a graph.
        out: The directory of the bundle; it appears there only when complete.
        model: The directory or hub id of the PyTorch model that the graphs were made from, whose
            vectors they are compared with; default the weights next to the graphs, where there are.
        pooling: The pooling, as of `export_model`; default as the model says.
        normalize: Whether to end in L2 normalization; default as the model says.
        max_length: The most tokens of a text, or seconds of a sound; default as the model says.
        revision: The branch, tag or commit of ``graphs`` on the hub.
        record_reference: Whether, without weights, the fp32 graph's own vectors become what its
            quantized siblings are compared with.
        trust_remote_code: Whether Python files of the model's directory may run, with your rights.
        overwrite: Whether ``out`` may replace a bundle.
        report: A function that takes lines that say what was chosen and what is being done.

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
    config, main = check_model(origin, trust)
    if record and has_weights(origin.path):
        raise OptionError("--record-reference is for graphs without weights, and these have some")
    if main != BOTH:
        layout.check_single()
    kind = TextAdoption if main == IDS else _of_media(main)
    _write(kind(layout, origin, overrides, str(config.model_type), record, say, main), target)
    return Bundle.open(target)


def _of_media(main: str) -> type[Adoption]:
    """The adoption of images, of sounds or of two towers, whose packages are extras."""
    with needing("Adopting this model", "export"):
        if main == BOTH:
            from fmrt.export.adopt.towers import TowersAdoption

            return TowersAdoption
        from fmrt.export.adopt.media import MediaAdoption

        return MediaAdoption


def _write(adoption: Adoption, target: Path) -> None:
    """Write the bundle, and put it in its place when it is complete."""
    origin = adoption.origin
    with placed(target) as partial:
        with full_precision(), _one_line(origin.name):
            adoption.write(partial)
        copy_licences(origin.path, partial)
        stated, _ = read_source_card(origin)
        write_card(adoption.bundle(partial), stated)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Say in one line what libraries raise of files that no check foresaw.

    Raises:
        ExportError: Something was raised that is not ours, of the system or of memory.
    """
    try:
        yield
    except (FmrtError, OSError, MemoryError):
        raise
    except BaseException as e:
        if is_failure(e):
            raise ExportError(f"{name} cannot be adopted: {first_cause(e)}") from e
        raise


def _origin(given: Origin, layout: Layout, model: str | Path | None) -> Origin:
    """The model's directory: the one named, or that of the graphs.

    Raises:
        ExportError: The directory that was named has no weights.
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
