"""Graphs of images and sounds that other tools made become a bundle, or are refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import fmrt
from fmrt.errors import ExportError, UnverifiedWarning
from fmrt.export.audio.feature_extractor import reference_sounds
from fmrt.export.vision.image_processor import reference_images
from tests.export.audio import AUDIO, save_audio
from tests.export.test_towers import save
from tests.export.vision import VISION, save_vision

CONFIGURATION = ("config.json", "preprocessor_config.json")
ITEMS = {"image": reference_images, "audio": reference_sounds}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = next(tiny for tiny in VISION if tiny.model_type == "dinov2")
    return save_vision(tiny, tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    fmrt.export_model(model, out)
    return out


def lay_out(place: Path, model: Path, bundle: Path, file: str = "onnx/model.onnx") -> Path:
    """A graph as other tools make them: it ends in the tokens' states."""
    graph = onnx.load(bundle / "onnx" / "model.onnx")
    del graph.graph.output[1]
    (place / file).parent.mkdir(parents=True)
    onnx.save(graph, place / file)
    for name in CONFIGURATION:
        shutil.copyfile(model / name, place / name)
    return place


def embedded(bundle: fmrt.Bundle | Path, modality: str = "image") -> np.ndarray:
    with fmrt.Embedder(bundle) as embedder:
        return embedder.embed(ITEMS[modality](), on_too_long="truncate")


def test_an_adopted_graph_of_images_gives_the_models_vectors(
    model: Path, exported: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    place = lay_out(tmp_path / "in", model, exported)
    bundle = fmrt.adopt_onnx(place, tmp_path / "out", model=model, report=said.append)
    assert "  pooling: cls (equal to the pooler_output, which no graph gives)" in said
    assert np.abs(embedded(bundle) - embedded(exported)).max() <= 1e-5
    assert bundle.manifest.reference == "pytorch"
    assert bundle.manifest.variants[0].tolerance is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_an_adopted_graph_of_sounds_gives_the_models_vectors(name: str, tmp_path: Path) -> None:
    tiny = next(tiny for tiny in AUDIO if tiny.name == name)
    model = save_audio(tiny, tmp_path / "model")
    exported = fmrt.export_model(model, tmp_path / "exported")
    place = lay_out(tmp_path / "in", model, tmp_path / "exported")
    bundle = fmrt.adopt_onnx(place, tmp_path / "out", model=model)
    assert np.abs(embedded(bundle, "audio") - embedded(exported, "audio")).max() <= 1e-5
    with pytest.warns(UnverifiedWarning, match="its fp32 graph's own"):
        own = fmrt.adopt_onnx(place, tmp_path / "own", record_reference=True)
    assert np.abs(embedded(own, "audio") - embedded(exported, "audio")).max() <= 1e-5


def test_a_bad_graph_of_images_is_one_line(model: Path, exported: Path, tmp_path: Path) -> None:
    place = lay_out(tmp_path / "in", model, exported)
    path = place / "onnx" / "model.onnx"
    graph = onnx.load(path)
    pixels = graph.graph.input[0].type.tensor_type.shape.dim[0]
    pixels.dim_value = 2
    onnx.save(graph, path)
    with pytest.raises(ExportError, match="takes a batch of fixed size 2: export it again"):
        fmrt.adopt_onnx(place, tmp_path / "out", model=model)
    pixels.dim_param = "batch"
    graph.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("grid", 7, [1]))
    onnx.save(graph, path)
    with pytest.raises(ExportError, match="takes the input 'grid', which fmrt has nothing to feed"):
        fmrt.adopt_onnx(place, tmp_path / "out", model=model)
    (place / "preprocessor_config.json").unlink()
    del graph.graph.input[1]
    onnx.save(graph, path)
    with pytest.raises(ExportError, match=r"has no preprocessor_config\.json"):
        fmrt.adopt_onnx(place, tmp_path / "out")
    two = save("clip", tmp_path / "clip")
    with pytest.raises(ExportError, match="takes pixel_values, and the text tower takes input_ids"):
        fmrt.adopt_onnx(place, tmp_path / "out", model=two)
    assert not (tmp_path / "out").exists()
