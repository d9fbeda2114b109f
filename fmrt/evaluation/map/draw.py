"""``draw_map`` is ``fmrt.draw_map``: it embeds a data set and draws it into a file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.inputs import AudioInput
from fmrt.data import read_embeddings
from fmrt.embed_options import DEFAULTS, EmbedOptions
from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.columns import Columns
from fmrt.evaluation.dataset import Dataset, Side
from fmrt.evaluation.load import load_dataset
from fmrt.evaluation.map.chart import Chart, Grouping
from fmrt.evaluation.map.clusters import clustered
from fmrt.evaluation.map.page import page
from fmrt.evaluation.map.picture import picture
from fmrt.evaluation.map.preview import previews
from fmrt.evaluation.map.project import METHODS, project
from fmrt.evaluation.map.query import QueryModel, query_model
from fmrt.evaluation.map.stored import stored
from fmrt.evaluation.model import BundleModel
from fmrt.evaluation.neighbours import Vectors, unit
from fmrt.evaluation.reading import Reading
from fmrt.system.whole_file import write_whole
from fmrt.words import shown

_WRITERS: dict[str, Callable[[Chart], bytes]] = {".html": page, ".png": picture}
_MOST_GROUPS = 2**16
_COLUMNS = {field.name for field in fields(Columns)}
_CLUSTERS = 8
_LEAST_ITEMS = 2
_MATRIX = 2
# At most so many digits become one number, as Python refuses an int of thousands of digits.
_DIGITS = re.compile(r"([0-9]{1,15})")


def draw_map(
    bundle: str | Path | Bundle,
    data: str | Path | Dataset,
    out: str | Path,
    *,
    method: str = "pca",
    clusters: int | None = None,
    seed: int = 0,
    vectors: str | Path | NDArray[Any] | None = None,
    variant: str | None = None,
    provider: str = "cpu",
    on_error: str = "fail",
    overwrite: bool = False,
    config: str | None = None,
    data_revision: str | None = None,
    package: str | Path | None = None,
    node_modules: str | Path = "node_modules",
    options: EmbedOptions = DEFAULTS,
    **more: Any,
) -> tuple[str, ...]:
    """Draw a data set as a map. Each item is a point, and items with near vectors are near.

    Args:
        bundle: The directory or hub id of a bundle.
        data: The data set, as `fmrt.evaluate` takes it.
        out: The file: ``.html`` for an interactive page in one file, or ``.png`` for a picture.
        method: The projection: ``pca``; ``tsne``; or ``umap``, with the package umap-learn.
        clusters: The number of clusters of k-means; default the number of classes, or 8.
        seed: The seed of t-SNE, UMAP and k-means.
        vectors: The items' vectors, as a file, folder or array ``[n, dim]``, instead of embedding.
        variant: The variant of the bundle; default the provider's own fp32 graph.
        provider: The execution provider, as for `fmrt.Embedder`.
        on_error: ``fail`` stops at an item that cannot be used; ``skip`` leaves it out.
        overwrite: Whether to replace ``out``.
        config: The configuration of a data set on the hub that has several.
        data_revision: The branch, tag or commit of a data set on the hub.
        package: A bundle of the same model, such as one file of `fmrt.package_bundle`. The page
            then holds it, and runs it to embed queries.
        node_modules: The npm folder with onnxruntime-web and @huggingface/tokenizers, which run it.
        options: The options of embedding; see `fmrt.EmbedOptions`.
        more: Fields of `fmrt.evaluation.Columns`, ``workers``, or changes of ``options``.

    Returns:
        Lines about what was decided about the data, and about what is not shown in full.

    Raises:
        DataError: The data set is missing or too small, or ``vectors`` or ``out`` cannot be used.
        InputError: An item cannot be used, and ``on_error`` is ``fail``.
        OptionError: An option makes no sense.
        MissingExtraError: A package of ``fmrt[evaluate]`` is missing.
        BundleError: The bundle cannot be used.
    """
    write = _checked_writer(out, method, clusters, seed, overwrite=overwrite)
    model, columns = _model(bundle, variant, provider, options, more)
    query = _query(package, model.bundle, node_modules, Path(out))
    found = _loaded(data, model, columns, on_error, config, data_revision)
    chart = _chart(*_vectors(model, found, vectors, on_error), model, method, clusters, seed)
    write_whole(Path(out), write(replace(chart, query=query)))
    return (*found.choices, *(f"note: {line}" for line in chart.notes))


def _model(
    bundle: str | Path | Bundle,
    variant: str | None,
    provider: str,
    options: EmbedOptions,
    more: dict[str, Any],
) -> tuple[BundleModel, Columns]:
    """The model, and the names of columns, with the options in ``more``."""
    columns = Columns(**{name: more.pop(name) for name in _COLUMNS & more.keys()})
    loading = {"workers": more.pop("workers")} if "workers" in more else {}
    options = options.but(more)
    return BundleModel(Bundle.opened(bundle), variant, provider, options, loading), columns


def _loaded(
    data: str | Path | Dataset,
    model: BundleModel,
    columns: Columns,
    on_error: str,
    config: str | None,
    data_revision: str | None,
) -> Dataset:
    return load_dataset(
        data,
        model.bundle.manifest.modalities,
        modality=model.options.modality,
        columns=columns,
        on_error=on_error,
        config=config,
        data_revision=data_revision,
    )


def _vectors(
    model: BundleModel, found: Dataset, given: str | Path | NDArray[Any] | None, on_error: str
) -> tuple[Dataset, Vectors]:
    """The items that have a vector, with their vectors."""
    if given is None:
        return _embedded(model, found, Reading(on_error))
    return found, _given(given, sum(len(side.items) for side in found.sides.values()))


def _query(
    package: str | Path | None, bundle: Bundle, node_modules: str | Path, out: Path
) -> QueryModel | None:
    if package is None:
        return None
    if out.suffix != ".html":
        raise OptionError(f"package={str(package)!r} is for a page, and {str(out)!r} is a picture")
    return query_model(package, bundle, node_modules)


def _checked_writer(
    out: str | Path, method: str, clusters: int | None, seed: int, *, overwrite: bool
) -> Callable[[Chart], bytes]:
    """The writer of the file, after all options of drawing are checked."""
    write = _writer(out, overwrite=overwrite)
    _check(method, clusters, seed)
    return write


def _writer(out: str | Path, *, overwrite: bool) -> Callable[[Chart], bytes]:
    path = Path(out)
    if path.suffix not in _WRITERS:
        raise OptionError(f"out={os.fspath(out)!r}; choose a name that ends in .html or .png")
    if path.exists() and not overwrite:
        raise DataError(f"{shown(str(path))} exists; say --overwrite or give another name")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    return _WRITERS[path.suffix]


def _check(method: str, clusters: int | None, seed: int) -> None:
    if method not in METHODS:
        raise OptionError(f"method={quoted(method)}; choose from: {', '.join(METHODS)}")
    if clusters is not None and (type(clusters) is not int or not 1 <= clusters < _MOST_GROUPS):
        raise OptionError(f"clusters={quoted(clusters)}; give a whole number from 1 to 65,535")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise OptionError(f"seed={quoted(seed)}; give a whole number of at least 0")


def _embedded(model: BundleModel, data: Dataset, reading: Reading) -> tuple[Dataset, Vectors]:
    """Embed all sides. Items that cannot be embedded are left out, or are an error."""
    found = model.embed(data.sides)
    for name, failed in found.failed.items():
        for row, reason in failed.items():
            reading.left_out(f"{data.name!r}, {data.sides[name].places[row]}", reason)
    vectors = dict(found.vectors)
    if any(found.failed.values()):
        data, kept = data.without(found.failed)
        vectors = {name: vectors[name][rows] for name, rows in kept.items()}
        data = replace(data, notes=(*data.notes, *reading.notes()))
    return data, np.concatenate([vectors[name] for name in data.sides])


def _given(vectors: str | Path | NDArray[Any], count: int) -> Vectors:
    """The stored vectors as float32.

    Raises:
        DataError: They are not one per item, not of a known type, or not finite.
    """
    if isinstance(vectors, np.ndarray):
        name, values = "the array", vectors
    else:
        name, values = shown(str(vectors)), read_embeddings(str(vectors))[0]
    if values.ndim != _MATRIX or (values.dtype.kind != "f" and values.dtype != np.int8):
        raise DataError(
            f"{name} holds {values.dtype} {list(values.shape)}; give vectors [n, dim] of float32, "
            "float16 or int8"
        )
    if len(values) != count:
        raise DataError(
            f"{name} holds {len(values):,} vectors, and the data set has {count:,} items: give "
            "the data that was embedded, without --on-error skip"
        )
    found: Vectors = np.asarray(values, np.float32)
    if len(bad := np.flatnonzero(~np.isfinite(found).all(axis=1))):
        raise DataError(f"row {bad[0]} of {name} holds NaN or infinity; embed it again")
    return found


def _chart(
    data: Dataset,
    vectors: Vectors,
    model: BundleModel,
    method: str,
    clusters: int | None,
    seed: int,
) -> Chart:
    sides = list(data.sides.values())
    if len(vectors) < _LEAST_ITEMS:
        raise DataError(f"{data.name!r} has 1 item, and a map needs at least {_LEAST_ITEMS}")
    plane = project(vectors, method, seed)
    vectors = unit(vectors)
    groupings = _groupings(data, sides)
    count = clusters or (len(groupings[0].names) if data.labels is not None else _CLUSTERS)
    codes = clustered(vectors, count, seed)
    names = [f"cluster {i + 1}" for i in range(int(codes.max()) + 1)]
    spec = model.bundle.manifest.tower(sides[0].modality).input
    shown_items = previews(sides, spec.sampling_rate if isinstance(spec, AudioInput) else None)
    return Chart(
        Path(data.name).name or data.name,
        str(model.describe()["name"]),
        sides[0].modality,
        plane.axes,
        plane.coordinates,
        [place for side in sides for place in side.places],
        [*groupings, Grouping("cluster", names, codes)],
        stored(vectors),
        shown_items,
        [*data.notes, *shown_items.notes],
    )


def _groupings(data: Dataset, sides: Sequence[Side]) -> list[Grouping]:
    """The groupings by label, split and side, where the data has them."""
    found = []
    if data.labels is not None:
        found.append(_grouping("label", data.labels, data.name))
    if data.split is not None:
        found.append(_grouping("split", data.split, data.name))
    if len(sides) > 1:
        of_each = [name for name, side in data.sides.items() for _ in side.items]
        found.append(_grouping("side", of_each, data.name))
    return found


def _grouping(name: str, values: Sequence[str], source: str) -> Grouping:
    names = sorted(set(values), key=_order)
    if len(names) >= _MOST_GROUPS:
        raise DataError(
            f"{source!r} has {len(names):,} different values of {name}; name another column"
        )
    number = {value: i for i, value in enumerate(names)}
    return Grouping(name, names, np.array([number[value] for value in values], np.uint16))


def _order(name: str) -> tuple[float, list[str | int], str]:
    """The sort key of a name: numbers by their value, then words, in which 2 is before 10."""
    try:
        value = float(name)
    except ValueError:
        value = math.nan
    parts = [int(p) if i % 2 else p for i, p in enumerate(_DIGITS.split(name))]
    return (value if math.isfinite(value) else math.inf, parts, name)
