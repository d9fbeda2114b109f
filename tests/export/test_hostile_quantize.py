"""fmrt quantize on a hostile bundle: one line, and nothing written outside."""

from __future__ import annotations

import json
import random
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmrt.errors import BundleCorruptError, FmrtError
from fmrt.export import quantize_bundle
from tests.attack import bundles
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes
from tests.attack.test_bundle_files import with_hash


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quantized") / "bundle"
    (directory / "onnx").mkdir(parents=True)
    bundles.make_text(directory)
    graph = with_a_product((directory / bundles.GRAPH).read_bytes())
    (directory / bundles.GRAPH).write_bytes(graph)
    manifest = (directory / bundles.MANIFEST).read_bytes()
    (directory / bundles.MANIFEST).write_bytes(with_hash(manifest, bundles.GRAPH, graph))
    return directory


def with_a_product(graph: bytes) -> bytes:
    """The graph with a product that is large enough to be quantized, and changes no vector."""
    model, dim, times = onnx.load_from_string(graph), bundles.text.DIM, 8
    *before, last = model.graph.node
    (mean,) = last.input
    node = onnx.helper.make_node
    wide = [
        node("Concat", [mean] * times, ["wide"], axis=1),
        node("MatMul", ["wide", "one"], ["product"]),
        node("MatMul", ["product", "together"], ["narrow"]),
    ]
    last.input[0] = "narrow"
    del model.graph.node[:]
    model.graph.node.extend([*before, *wide, last])
    constants = {"one": np.eye(dim * times), "together": np.tile(np.eye(dim), (times, 1)) / times}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in constants.items()
    )
    return model.SerializeToString()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_folder_that_leads_out_is_not_written_to(bundle: Path, tmp_path: Path) -> None:
    hostile = shutil.copytree(bundle, tmp_path / "hostile")
    (hostile / "onnx").rename(tmp_path / "elsewhere")
    (hostile / "onnx").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.glob("elsewhere/*"))
    with pytest.raises(BundleCorruptError, match="is a link out of the bundle"):
        quantize_bundle(hostile, ["int8"])
    assert sorted(tmp_path.glob("elsewhere/*")) == before


def changed(graph: bytes, generator: random.Random) -> bytes:
    return mutated_bytes(generator, graph)


def quantized(place: Path, graph: bytes) -> None:
    (place / bundles.GRAPH).write_bytes(graph)
    manifest = json.dumps(json.loads((place / "original.json").read_text())).encode()
    (place / bundles.MANIFEST).write_bytes(with_hash(manifest, bundles.GRAPH, graph))
    quantize_bundle(place, ["int8"], min_cosine=0.1)


@pytest.mark.slow
def test_graphs_that_are_quantized(bundle: Path, tmp_path: Path) -> None:
    hostile = shutil.copytree(bundle, tmp_path / "hostile")
    shutil.copy(hostile / bundles.MANIFEST, hostile / "original.json")
    graph = (hostile / bundles.GRAPH).read_bytes()
    budget = Budget.from_environment(60.0)
    target, make = partial(quantized, hostile), partial(changed, graph)
    attack(target, make, budget, most_seconds=120, most_growth=1 << 30)


def test_a_bundle_without_a_portable_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    hostile = shutil.copytree(bundle, tmp_path / "hostile")
    raw = json.loads((hostile / bundles.MANIFEST).read_text())
    raw["variants"][0]["provider"] = "cpu"
    (hostile / bundles.MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(FmrtError):
        quantize_bundle(hostile, ["int8"])
