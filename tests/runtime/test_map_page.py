"""The page of ``fmrt map`` in headless Chromium: what it shows, finds and exports, and how fast."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fmrt.evaluation import Side
from fmrt.evaluation.map.chart import Chart, Grouping
from fmrt.evaluation.map.page import page
from fmrt.evaluation.map.preview import previews
from fmrt.evaluation.map.stored import stored
from fmrt.evaluation.neighbours import unit

pytest.importorskip("fcntl")
from .chromium import Page, browser, find

PROGRAM = find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None or shutil.which("bash") is None,
        reason="needs Chromium: apt-get install chromium",
    ),
]
RNG = np.random.default_rng(0)
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'> & \"'"
MANY = 100_000
# Pans to and fro for two seconds, and gives the frames a second.
PAN = """new Promise(done => {
  const map = document.getElementById("points");
  const event = (kind, x) => map.dispatchEvent(
    new PointerEvent(kind, { pointerId: 1, clientX: x, clientY: 400, bubbles: true }));
  event("pointerdown", 400);
  const start = performance.now();
  let frames = 0;
  const step = () => {
    event("pointermove", 400 + 60 * Math.sin(++frames / 9));
    const passed = performance.now() - start;
    if (passed < 2000) return requestAnimationFrame(step);
    event("pointerup", 400);
    done(frames / passed * 1000);
  };
  requestAnimationFrame(step);
})"""
# Waits until the map rests, and has drawn.
REST = """new Promise(then => setTimeout(
  () => requestAnimationFrame(() => requestAnimationFrame(then)), 500))"""
# Counts how often points are drawn, in all and until the pointer is lifted for the first time.
COUNT = """window.drawn = 0;
const real = WebGLRenderingContext.prototype.drawArrays;
WebGLRenderingContext.prototype.drawArrays = function (...given) {
  window.drawn += 1;
  return real.apply(this, given);
};
document.getElementById("points").addEventListener(
  "pointerup", () => { window.before ??= window.drawn; }, { capture: true });"""
SEARCH = """(() => {
  document.getElementById("query").value = %s;
  document.getElementById("search").requestSubmit();
  return document.getElementById("found").textContent;
})()"""
LISTED = "[...document.querySelectorAll('#list button')].map(b => Number(b.dataset.row))"
# Keeps what a click would save.
CATCH = """window.saved = [];
URL.createObjectURL = blob => { window.saved.push(blob); return "#"; };
HTMLAnchorElement.prototype.click = function () {};"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser(str(PROGRAM)) as opened:
        yield opened


def chart(side: Side, vectors: np.ndarray, labels: list[str], rate: int | None = None) -> Chart:
    vectors = unit(vectors)
    names, codes = np.unique(labels, return_inverse=True)
    groupings = [Grouping(n, list(names), codes.astype(np.uint16)) for n in ("label", "cluster")]
    shown = previews([side], rate)
    places = vectors[:, :2].copy()
    return Chart(
        "a <b>title</b>",
        "model",
        side.modality,
        ("first", "second"),
        places,
        side.places,
        groupings,
        stored(vectors),
        shown,
        shown.notes,
    )


def clouds(count: int, dim: int = 24) -> tuple[np.ndarray, list[str]]:
    """Vectors of four classes that are apart in the plane."""
    classes = np.arange(count) % 4
    corners = np.array([[-3, -3], [3, -3], [-3, 3], [3, 3]])
    vectors = RNG.standard_normal((count, dim)) * 0.5
    vectors[:, :2] += corners[classes]
    return vectors.astype(np.float32), [f"class {c}" for c in classes]


def texts_of(labels: list[str]) -> list[str]:
    words = {"class 0": "sea", "class 1": "wood", "class 2": "town", "class 3": "sky"}
    return [f"{words[label]} number {i}" for i, label in enumerate(labels)]


def written(path: Path, found: Chart) -> Path:
    path.write_bytes(page(found))
    return path


def test_hover_search_lasso_export_and_keys(chromium: Page, tmp_path: Path) -> None:
    vectors, labels = clouds(400)
    texts = texts_of(labels)
    texts[7] = HOSTILE
    side = Side(texts, [f"record {i}" for i in range(400)])
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.open(written(tmp_path / "map.html", chart(side, vectors, labels)))
    picture = chromium.screenshot()
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(picture)).convert("RGB")
    left = image.crop((20, 130, 900, 740))
    assert len(left.getcolors(1 << 24)) > 50, "the points are drawn"

    # Words: those who have them come first, and then those whose vectors are like theirs.
    assert chromium.run(SEARCH % '"sea number"').startswith("100 with these words")
    found = chromium.run(LISTED)
    assert {labels[row] for row in found[:100]} == {"class 0"}
    assert len(set(found)) == len(found)
    assert chromium.run(SEARCH % '"wood sea"').startswith("0 with these words")
    both = {labels[row] for row in chromium.run(LISTED)[:100]}
    assert both == {"class 0", "class 1"}
    assert chromium.run(SEARCH % '"nothing like it"') == "Nothing holds any of these words"

    # A hostile text is a text.
    assert chromium.run(SEARCH % json.dumps("onerror")).startswith("1 with")
    assert chromium.run("document.querySelector('#list .text').textContent") == HOSTILE
    assert chromium.run("document.getElementById('title').textContent") == "a <b>title</b>"
    assert chromium.run("typeof window.hacked") == "undefined"

    # A lasso around the upper right; what is exported is what is inside.
    chromium.key("Escape")
    chromium.run("document.getElementById('lasso').click()")
    chromium.drag([(480, 410), (900, 410), (900, 90), (480, 90)])
    inside = chromium.run("document.getElementById('found').textContent")
    assert inside.endswith("in the lasso")
    chromium.run(CATCH)
    chromium.run("document.getElementById('json').click()")
    chromium.run("document.getElementById('csv').click()")
    records = json.loads(chromium.run("window.saved[0].text()"))
    assert len(records) == int(inside.split()[0]) >= 90
    assert {r["label"] for r in records} == {"class 3"}
    assert all(np.isclose(r["x"], unit(vectors)[r["row"], 0]) for r in records)
    assert chromium.run("window.saved[1].text()").splitlines()[0] == (
        "row,place,label,cluster,x,y,text"
    )

    # The mouse over a point, and keys alone.
    chromium.run("document.getElementById('pan').click()")
    shown = []
    for x in range(150, 800, 12):
        chromium.mouse("moved", x, 650)
        shown.append(chromium.run("document.getElementById('card').textContent"))
    assert len({text for text in shown if "number" in text}) > 3
    chromium.key("Escape")
    chromium.run("document.getElementById('points').focus()")
    for key in ("ArrowRight", "ArrowUp", "Enter"):
        chromium.key(key)
    assert "most like record" in chromium.run("document.getElementById('status').textContent")
    assert len(chromium.run(LISTED)) == 200
    assert chromium.problems == []
    assert all(url.startswith(("file:", "blob:")) for url in chromium.requests)


def test_everything_that_acts_has_a_name(chromium: Page, tmp_path: Path) -> None:
    vectors, labels = clouds(40)
    side = Side(texts_of(labels), [str(i) for i in range(40)])
    chromium.open(written(tmp_path / "map.html", chart(side, vectors, labels)))
    tree = chromium.call("Accessibility.getFullAXTree")["nodes"]
    acting = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if node.get("role", {}).get("value")
        in ("button", "searchbox", "combobox", "checkbox", "application")
    ]
    assert len(acting) > 10
    assert [role for role, name in acting if not name] == []


def test_pictures_and_sounds(chromium: Page, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("soundfile")
    vectors, labels = clouds(20)
    names = [f"number {i}" for i in range(20)]
    pictures = RNG.integers(0, 255, (20, 30, 40, 3), dtype=np.uint8)
    side = Side(list(pictures), names, "image")
    chromium.open(written(tmp_path / "images.html", chart(side, vectors, labels)))
    chromium.run(SEARCH % '"class 2"')
    chromium.run("document.querySelector('#list button').click()")
    chromium.wait("document.querySelector('#card img')?.naturalWidth === 40")
    chromium.wait("document.querySelector('#list img')?.naturalWidth === 40")
    seconds = np.arange(8000, dtype=np.float32) / 16000
    sounds = [np.sin(2 * np.pi * (200 + 20 * i) * seconds).astype(np.float32) for i in range(20)]
    side = Side(sounds, names, "audio")
    chromium.open(written(tmp_path / "sounds.html", chart(side, vectors, labels, 16000)))
    chromium.run("""const real = HTMLMediaElement.prototype.play; window.played = [];
      HTMLMediaElement.prototype.play = function () {
        window.played.push(this); return real.call(this); }""")
    chromium.run(SEARCH % '"class 1"')
    chromium.run("document.querySelector('#list button').click()")
    chromium.wait("window.played[0]?.duration > 0.4 && window.played[0].duration < 0.7")
    assert chromium.problems == []


def until(
    enough: Callable[[float], bool],
    measure: Callable[[], float],
    best: Callable[[float, float], float],
) -> float:
    """The best of at most eight measurements; the first that is enough ends them."""
    found = measure()
    for _ in range(7):
        if enough(found):
            break
        found = best(found, measure())
    return found


def test_a_hundred_thousand_points_open_and_pan_fluently(chromium: Page, tmp_path: Path) -> None:
    vectors, labels = clouds(MANY, 96)
    side = Side(texts_of(labels), [f"record {i}" for i in range(MANY)])
    path = written(tmp_path / "map.html", chart(side, vectors, labels))
    assert path.stat().st_size < 40_000_000
    # The best of some: other work of the machine only adds.
    opened = until(lambda seconds: seconds < 3, lambda: chromium.open(path), min)
    chromium.run(COUNT)
    frames = until(lambda frames: frames >= 30, lambda: chromium.run(PAN), max)
    print(f"{MANY:,} points: opened in {opened:.2f} s, {frames:.0f} frames a second")
    assert opened < 3
    assert frames >= 30
    # No point is drawn anew while the map is held, however slow the machine is, nor for hovering.
    assert chromium.run("window.before") == 0
    chromium.run(REST)
    drawn = chromium.run("window.drawn")
    for x in range(250, 400, 10):
        chromium.mouse("moved", x, 600)
    assert chromium.run("document.getElementById('card').textContent")
    assert chromium.run("window.drawn") == drawn
    assert chromium.run(SEARCH % '"sky number 99999"').startswith("1 with these words")
    assert chromium.problems == []
