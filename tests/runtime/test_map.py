"""``fmrt map``: places, what a page holds of a data set, and what is wrong with a request."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmrt
from fmrt.cli import main
from fmrt.evaluation import Dataset, Side
from fmrt.evaluation.dataset import ITEMS, LABELLED
from fmrt.evaluation.map import preview
from fmrt.evaluation.map.chart import SHAPES, mark
from fmrt.evaluation.map.draw import _grouping
from fmrt.evaluation.map.page import _json
from fmrt.evaluation.map.preview import previews
from fmrt.evaluation.map.project import project
from fmrt.evaluation.map.stored import BYTES, stored
from fmrt.evaluation.neighbours import unit

RNG = np.random.default_rng(0)
TEXTS = ["cat mat red", "cat on mat", "dog ran", "dog ran blue", "road", "on the road"]
LABELS = ["cat", "cat", "dog", "dog", "road", "road"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(TEXTS, LABELS, strict=True)])
    return path


def part(page: str, name: str) -> str:
    return re.search(rf'id="data-{name}">(.*?)</script>', page, re.S)[1]


def test_pca_is_that_of_the_singular_vectors() -> None:
    vectors = (RNG.standard_normal((200, 30)) * np.arange(1, 31)).astype(np.float32)
    centred = vectors - vectors.mean(0)
    _, lengths, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    plane = project(vectors)
    want = centred @ axes[:2].T
    assert np.allclose(np.abs(plane.coordinates), np.abs(want), atol=1e-2)
    assert f"{lengths[0] ** 2 / (lengths**2).sum():.1%}" in plane.axes[0]


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("shape", [(2, 1), (5, 1), (4, 7), (6, 60)])
def test_places_are_finite_and_repeat(method: str, shape: tuple[int, int]) -> None:
    for vectors in (np.ones(shape, np.float32), RNG.standard_normal(shape).astype(np.float32)):
        if method == "tsne" and len(vectors) < 4:
            with pytest.raises(fmrt.FmrtError, match="needs at least 4 items"):
                project(vectors, method)
            continue
        places = project(vectors, method).coordinates
        assert places.shape == (len(vectors), 2)
        assert np.isfinite(places).all()
        assert np.array_equal(places, project(vectors, method).coordinates)


def test_stored_vectors_keep_cosines_in_bounded_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = RNG.standard_normal((20, 96))
    vectors = unit(RNG.standard_normal((300, 20)) @ mixing)
    exact = vectors @ vectors.T
    whole = stored(vectors)
    assert whole.values.shape == vectors.shape
    monkeypatch.setattr("fmrt.evaluation.map.stored.BYTES", 300 * 24)
    less = stored(vectors)
    assert less.values.shape == (300, 24)
    assert less.dim == 96
    for one in (whole, less):
        kept = unit(one.values.astype(np.float32))
        assert np.abs(kept @ kept.T - exact).max() < 0.02
    assert BYTES <= 1 << 24


def test_the_first_marks_differ() -> None:
    marks = [mark(i) for i in range(len(SHAPES) ** 2)]
    assert len(set(marks)) == len(marks)
    assert len({c for c, _ in marks[:7]}) == len({s for _, s in marks[:7]}) == 7


@given(st.lists(st.text(), max_size=5))
@settings(max_examples=60)
def test_texts_in_a_page_end_no_element_and_are_themselves(texts: list[str]) -> None:
    texts = [*texts, "</script><img src=x onerror=alert(1)>", "<!--<script>", "\ud800 \u2028 \0"]
    written = _json(texts)
    assert b"<" not in written
    assert json.loads(written.decode("utf-8")) == texts


def test_a_map_of_a_table_and_of_its_stored_vectors(tiny_bundle, table, tmp_path, capsys) -> None:
    assert main(["map", str(tiny_bundle), str(table), "-o", str(tmp_path / "map.html")]) == 0
    assert "labels are of column 'label'" in capsys.readouterr().err
    page = (tmp_path / "map.html").read_text("utf-8")
    about = json.loads(part(page, "about"))
    assert json.loads(part(page, "texts")) == TEXTS
    assert [g["name"] for g in about["groupings"]] == ["label", "cluster"]
    assert about["groupings"][0]["counts"] == [2, 2, 2]
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    vectors = tmp_path / "vectors.npy"
    fmrt.embed_to_file(tiny_bundle, tmp_path / "texts.txt", vectors)
    fmrt.draw_map(tiny_bundle, table, tmp_path / "again.html", vectors=vectors)
    assert (tmp_path / "again.html").read_text("utf-8") == page
    with pytest.raises(fmrt.FmrtError, match="exists; say"):
        fmrt.draw_map(tiny_bundle, table, tmp_path / "again.html")
    fmrt.draw_map(tiny_bundle, tmp_path / "texts.txt", tmp_path / "plain.html", vectors=vectors)
    about = json.loads(part((tmp_path / "plain.html").read_text("utf-8"), "about"))
    assert [g["name"] for g in about["groupings"]] == ["cluster"]


@pytest.mark.parametrize(
    "names", [["-2", "-1.5", "0", "9", "10", "1e3"], ["3", "fold 2", "fold 10", "fold b", "nan"]]
)
def test_groups_come_in_the_order_of_their_numbers(names: list[str]) -> None:
    found = _grouping("label", [*reversed(names), names[1]], "data")
    assert found.names == names
    assert found.codes.tolist() == [*reversed(range(len(names))), 1]


def test_a_picture(tiny_bundle, tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    labels = tuple(f"$x_{i}^$ <b>" if i else "_hidden" for i in range(30))
    side = Side(["cat", "dog"] * 15, [f"record {i}" for i in range(30)])
    data = Dataset("d", LABELLED, {ITEMS: side}, labels)
    fmrt.draw_map(tiny_bundle, data, tmp_path / "map.png")
    with image.open(tmp_path / "map.png") as found:
        assert found.size == (1350, 975)
        assert len(found.convert("RGB").getcolors(1 << 24)) > 20


def test_previews_are_bounded_and_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 3000
    found = previews([Side([long, "short"], ["1", "2"])])
    assert found.texts == (["x" * 2000 + "…", "short"])
    assert found.notes == ["of 1 texts the page shows the first 2,000 characters"]
    pytest.importorskip("PIL")
    monkeypatch.setattr(preview, "BYTES", 400)
    pictures = RNG.integers(0, 255, (5, 40, 60, 3), dtype=np.uint8)
    found = previews([Side(list(pictures), list("abcde"), "image")])
    assert found.mime == "image/webp"
    assert 400 <= found.ends[-1] == len(found.data) < 2000
    assert "of 5 items have no picture" in found.notes[0]


def problems(tiny_bundle: Path, table: Path, tmp_path: Path):
    one, nan = tmp_path / "one.csv", tmp_path / "nan.npy"
    one.write_text("text\ncat\n")
    np.save(nan, np.full((6, 3), np.nan, np.float32))
    np.save(tmp_path / "two.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "bits.npy", np.ones((6, 3), np.uint8))
    yield [table, "-o", "map.pdf"], "choose a name that ends in .html or .png"
    yield [table, "-o", tmp_path / "no/map.html"], "there is no folder"
    yield [table, "--method", "som"], "choose from: pca, tsne, umap"
    yield [table, "--vectors", tmp_path / "two.npy"], "2 vectors, and the data set has 6 items"
    yield [table, "--vectors", nan], "row 0 of "
    yield [table, "--vectors", tmp_path / "bits.npy"], "give vectors [n, dim]"
    yield [table, "--clusters", "70000"], "give a whole number from 1 to 65,535"
    yield [table, "--label", "missing"], "has no column 'missing'"
    yield (
        [table, "--package", tiny_bundle],
        "its tokenizer is of kind 'WordLevel', and a page knows",
    )
    yield [table, "--package", "nowhere"], "nowhere"
    yield [one], "has 1 item, and a map needs at least 2"
    yield ["nowhere.csv"], "there is no file or folder 'nowhere.csv'"


def test_what_is_wrong_is_one_line(tiny_bundle, table, tmp_path, capsys) -> None:
    for arguments, words in problems(tiny_bundle, table, tmp_path):
        given = [str(a) for a in arguments]
        out = [] if "-o" in given else ["-o", str(tmp_path / "map.html")]
        assert main(["map", str(tiny_bundle), *given, *out]) == 1, given
        said = capsys.readouterr().err
        assert words in said
        assert len(said.splitlines()) == 1, said
        assert not (tmp_path / "map.html").exists()
