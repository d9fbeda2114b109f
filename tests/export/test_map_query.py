"""A page of ``fmrt map`` that holds a model finds by its own queries what fmrt finds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.evaluation import Dataset, Side
from fmrt.evaluation.dataset import ITEMS, LABELLED
from fmrt.evaluation.map.query import PACKAGES
from tests.export.models import TINY, save_tiny
from tests.export.test_javascript import EXAMPLE
from tests.export.test_javascript import TEXTS as QUERIES

pytest.importorskip("fcntl")
from tests.runtime.chromium import Page, browser, find

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find() is None or shutil.which("npm") is None, reason="no Chromium or npm"),
]
TEXTS = (EXAMPLE / "corpus.txt").read_text().splitlines()
ASK = """(() => {
  document.getElementById("query").value = %s;
  document.getElementById("search").requestSubmit();
})()"""
ANSWERED = "document.getElementById('found').textContent.includes('nearest to the query')"
SAID = "document.getElementById('status').textContent"
FOUND = """[...document.querySelectorAll('#list button')].map(
  (one) => [Number(one.dataset.row), Number(one.querySelector('.score').textContent)])"""


# Keeps what the worker that embeds has answered.
LISTEN = """(() => {
  window.answers = [];
  const Real = Worker;
  window.Worker = class extends Real {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => window.answers.push([...data.vector ?? []]));
    }
  };
})()"""


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser(str(find())) as opened:
        yield opened


def draw(bundle: Path, out: Path, texts: list[str] = TEXTS, **options: object) -> Path:
    places = [f"record {i}" for i in range(len(texts))]
    fmrt.draw_map(bundle, Dataset("corpus", LABELLED, {ITEMS: Side(texts, places)}), out, **options)
    return out


@pytest.mark.parametrize("kept", [384, 64])
def test_the_page_finds_what_fmrt_finds(
    chromium: Page, minilm: Path, node_modules: Path, tmp_path: Path, monkeypatch, kept: int
) -> None:
    """With whole vectors, and with vectors that were turned and made shorter."""
    texts = TEXTS if kept == 384 else TEXTS * 4
    monkeypatch.setattr("fmrt.evaluation.map.stored.BYTES", kept * len(texts))
    out = draw(minilm, tmp_path / "map.html", texts, package=minilm, node_modules=node_modules)
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.open(out)
    with fmrt.Embedder(minilm) as embedder:
        vectors = embedder.embed(texts)
        for query in ["how to read a file line by line", *filter(str.strip, QUERIES[:-1])]:
            chromium.run(ASK % json.dumps(query))
            chromium.wait(ANSWERED)
            rows, scores = np.array(chromium.run(FOUND)).T
            want = vectors @ embedder.embed_query(query)
            assert np.allclose(scores, want[rows.astype(int)], atol=0.02), query
            assert want[int(rows[0])] > want.max() - 0.01, query
        chromium.run(ASK % json.dumps(QUERIES[-1]))
        chromium.wait(f"{SAID}.includes('and the model takes 256')")
    assert chromium.problems == []
    assert all(url.startswith(("file:", "blob:")) for url in chromium.requests)


@pytest.mark.parametrize("variant", ["int8", "w8"])
def test_a_quantized_package_gives_its_own_vector_of_a_query(
    chromium: Page, node_modules: Path, tmp_path: Path, variant: str
) -> None:
    fmrt.export_model(save_tiny(TINY[0], tmp_path / "model"), tmp_path / "bundle")
    fmrt.quantize_bundle(tmp_path / "bundle", variant)
    package = tmp_path / "package"
    fmrt.package_bundle(tmp_path / "bundle", package, variant=variant)
    out = draw(
        tmp_path / "bundle", tmp_path / "map.html", package=package, node_modules=node_modules
    )
    chromium.problems.clear()
    chromium.open(out)
    chromium.run(LISTEN)
    with fmrt.Embedder(package, variant=variant) as quantized:
        for number, query in enumerate(["how to read a file", "the cat sat on a mat"], 1):
            chromium.run(ASK % json.dumps(query))
            chromium.wait(f"window.answers.length === {number}")
            found, want = np.array(chromium.run("window.answers")[-1]), quantized.embed_query(query)
            cosine = found @ want / np.linalg.norm(found) / np.linalg.norm(want)
            assert found.shape == want.shape
            assert cosine > 0.999, query
            chromium.wait(ANSWERED)
    assert f"package {variant}" in chromium.run("document.getElementById('how').textContent")
    assert chromium.problems == []


def test_a_model_that_gives_other_vectors_does_not_answer(
    chromium: Page, minilm: Path, node_modules: Path, tmp_path: Path
) -> None:
    out = draw(minilm, tmp_path / "map.html", package=minilm, node_modules=node_modules)
    page = out.read_bytes()
    chromium.open(out)
    assert b'"vector": [' in page
    place = page.index(b'"vector": [') + len(b'"vector": [')
    out.write_bytes(page[:place] + b"9" + page[place + 1 :])
    chromium.open(out)
    chromium.run(ASK % '"file"')
    chromium.wait(f"{SAID}.includes('the model gives other vectors')")
    assert chromium.run("document.getElementById('found').textContent").endswith("like them")


def test_what_cannot_be_put_into_a_page_is_one_line(
    minilm: Path, node_modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    fmrt.export_model(save_tiny(TINY[0], tmp_path / "model"), other)

    def refused(words: str, out: str = "map.html", **options: object) -> None:
        given = {"package": minilm, "node_modules": node_modules, **options}
        with pytest.raises(fmrt.FmrtError, match=words) as error:
            draw(minilm, tmp_path / out, **given)
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / out).exists()

    refused("is of another model than the map", package=other)
    refused("run npm install onnxruntime-web@", node_modules=tmp_path)
    refused("is a picture", out="map.png")
    monkeypatch.setattr("fmrt.evaluation.map.query.MOST_BYTES", 1_000_000)
    refused("has 9. MB, and a page takes 1: make a package of a smaller variant")
