"""Graphs of both towers that other tools made become one bundle, or are refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import fmrt
from fmrt.errors import ExportError, OptionError, UnverifiedWarning
from fmrt.export.audio.feature_extractor import reference_sounds
from fmrt.export.vision.image_processor import reference_images
from tests.export.test_towers import save

pytestmark = pytest.mark.slow

TEXTS = ["a photo of a cat", "x", "two dogs that run over a field of grass"]
ITEMS = {"image": reference_images, "audio": reference_sounds}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("clip", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    fmrt.export_model(model, out, normalize=False)
    return out


def lay_out(place: Path, model: Path, bundle: Path, rename: str | None = None) -> Path:
    """The towers' graphs as transformers.js has them: not normalized."""
    (place / "onnx").mkdir(parents=True)
    for file in bundle.glob("onnx/*_model.onnx"):
        graph = onnx.load(file)
        output = graph.graph.output[1]
        node = next(n for n in graph.graph.node if output.name in n.output)
        for names in (node.output, *(n.input for n in graph.graph.node)):
            names[:] = [rename if rename and n == output.name else n for n in names]
        output.name = rename or output.name
        onnx.save(graph, place / "onnx" / file.name)
    for file in model.glob("*.json"):
        shutil.copyfile(file, place / file.name)
    return place


def embedded(bundle: fmrt.Bundle | Path, modality: str) -> tuple[np.ndarray, np.ndarray]:
    with fmrt.Embedder(bundle) as embedder:
        texts = embedder.embed(TEXTS, normalize=True, on_too_long="truncate")
        others = embedder.embed(ITEMS[modality](), normalize=True, on_too_long="truncate")
        return texts, others


def test_both_towers_give_the_models_vectors(model: Path, exported: Path, tmp_path: Path) -> None:
    said: list[str] = []
    place = lay_out(tmp_path / "in", model, exported)
    bundle = fmrt.adopt_onnx(place, tmp_path / "out", model=model, report=said.append)
    assert bundle.manifest.modalities == ("text", "image")
    assert bundle.manifest.reference == "pytorch"
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    for got, want in zip(embedded(bundle, "image"), embedded(exported, "image"), strict=True):
        assert np.abs(got - want).max() <= 1e-5
    with pytest.warns(UnverifiedWarning, match="unverified: no reference"):
        bare = fmrt.adopt_onnx(place, tmp_path / "bare")
    assert bare.manifest.towers == bundle.manifest.towers
    with pytest.warns(UnverifiedWarning, match="its fp32 graph's own"):
        own = fmrt.adopt_onnx(place, tmp_path / "own", record_reference=True)
    assert all(report.passed for report in fmrt.verify_bundle(own))


@pytest.mark.parametrize("kind", ["siglip", "clap"])
def test_each_kind_of_towers_gives_the_models_vectors(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path / "model")
    exported = fmrt.export_model(model, tmp_path / "exported", normalize=False)
    name = "pooler_output" if kind == "siglip" else None
    place = lay_out(tmp_path / "in", model, tmp_path / "exported", name)
    other = exported.manifest.modalities[1]
    with pytest.warns(UnverifiedWarning, match="unverified: no reference"):
        bare = fmrt.adopt_onnx(place, tmp_path / "bare")
    for bundle in (fmrt.adopt_onnx(place, tmp_path / "out", model=model), bare):
        for got, want in zip(embedded(bundle, other), embedded(exported, other), strict=True):
            assert np.abs(got - want).max() <= 1e-5


def _missing(place: Path) -> None:
    (place / "onnx" / "vision_model.onnx").unlink()


def _swapped(place: Path) -> None:
    text, vision = (place / "onnx" / f"{name}_model.onnx" for name in ("text", "vision"))
    text.rename(place / "onnx" / "other")
    vision.rename(text)
    (place / "onnx" / "other").rename(vision)


def _candidates(place: Path) -> None:
    file = place / "onnx" / "text_model.onnx"
    (place / file.name).write_bytes(file.read_bytes() + b"\0")


def _edited(name: str, edit: Callable[[onnx.GraphProto], None]) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = place / "onnx" / f"{name}_model.onnx"
        graph = onnx.load(path)
        edit(graph.graph)
        onnx.save(graph, path)

    return change


def _fix_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def _narrow(graph: onnx.GraphProto) -> None:
    """End in fewer elements, as a tower of another model does."""
    node = next(n for n in graph.node if "image_embeds" in n.output)
    node.output[0] = "whole"
    ends = [numpy_helper.from_array(np.array([n]), f"end{n}") for n in (0, 8, 1)]
    graph.initializer.extend(ends)
    names = ["whole", "end0", "end8", "end1"]
    graph.node.append(helper.make_node("Slice", names, ["image_embeds"]))
    del graph.output[1].type.tensor_type.shape.dim[1]
    graph.output[1].type.tensor_type.shape.dim.add().dim_param = "size"


def _unprojected(graph: onnx.GraphProto) -> None:
    del graph.output[1]


def _other_weights(graph: onnx.GraphProto) -> None:
    weight = next(w for w in graph.initializer if len(w.dims) == 2 and w.dims[0] == 32)
    values = numpy_helper.to_array(weight) * 1.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


BAD = {
    "missing": (_missing, r"no graph of the model's image tower, vision_model\.onnx"),
    "swapped": (_swapped, r"takes input_ids; were the files of the two towers"),
    "candidates": (_candidates, r"2 models .onnx/text_model\.onnx, text_model\.onnx"),
    "batch of texts": (_edited("text", _fix_batch), "a batch of fixed size 2: export it again"),
    "batch of images": (_edited("vision", _fix_batch), "a batch of fixed size 2: export it again"),
    "sizes": (_edited("vision", _narrow), "vision_model.onnx of 8: they are no"),
    "states": (_edited("vision", _unprojected), "image tower with its projection"),
    "weights": (_edited("text", _other_weights), r"fp32 \(text\): .* made from other weights"),
    "tokenizer": (lambda place: (place / "tokenizer.json").unlink(), "has no tokenizer"),
    "processor": (lambda place: (place / "preprocessor_config.json").unlink(), "preprocessor_conf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_towers_are_one_line(case: str, model: Path, exported: Path, tmp_path: Path) -> None:
    edit, message = BAD[case]
    place = lay_out(tmp_path / "in", model, exported)
    edit(place)
    named = model if case == "weights" else None
    with pytest.raises(ExportError, match=message) as raised:
        fmrt.adopt_onnx(place, tmp_path / "out", model=named)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_options_of_towers_that_make_no_sense(model: Path, exported: Path, tmp_path: Path) -> None:
    place = lay_out(tmp_path / "in", model, exported)
    with pytest.raises(OptionError, match="the towers end in the model's own projections"):
        fmrt.adopt_onnx(place, tmp_path / "out", pooling="mean")
    text = place / "onnx" / "text_model.onnx"
    with pytest.raises(ExportError, match="no graph of the model's image tower"):
        fmrt.adopt_onnx(text, tmp_path / "out")
