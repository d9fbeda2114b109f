"""``fmrt evaluate`` of images, sounds, two towers and masks, from a folder to the measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import fmrt
from fmrt.cli import main
from fmrt.errors import InputError
from fmrt.evaluation import load_dataset
from fmrt.evaluation.segments import iou, objects_of, overlaps
from tests.export.audio import AUDIO, save_audio
from tests.export.sam import save_segmenter
from tests.export.test_towers import save as save_towers
from tests.export.vision import VISION, save_vision

RNG = np.random.default_rng(0)
COLOURS = {"red": (200, 40, 30), "green": (30, 180, 60), "blue": (30, 60, 200)}


def pictures(root: Path, each: int = 6) -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.clip(RNG.normal(colour, 25, (24, 30, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def sounds(root: Path, each: int = 5) -> Path:
    time = np.arange(8000) / 16000
    for name, pitch in {"low": 150, "high": 2500}.items():
        (root / name).mkdir(parents=True)
        for i in range(each):
            wave = np.sin(2 * np.pi * pitch * time * (1 + i / 50)) + RNG.normal(0, 0.1, 8000)
            soundfile.write(root / name / f"{i}.wav", wave / 3, 16000)
    return root


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, float]]:
    assert main(["evaluate", *map(str, words), "--json", "--resamples", "20"]) == 0
    found = json.loads(capsys.readouterr().out)["models"][0]["tasks"]
    return {t["task"]: {m["name"]: m["value"] for m in t["measures"]} for t in found}


def test_a_folder_of_images_and_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fmrt.export_model(save_vision(VISION[0], tmp_path / "model"), tmp_path / "bundle")
    root = pictures(tmp_path / "data")
    found = measured(capsys, tmp_path / "bundle", root)
    assert set(found) == {"knn", "probe", "few-shot", "clustering", "checks"}
    assert found["probe"]["accuracy"] > 0.9
    digits = measured(capsys, tmp_path / "bundle", "digits", "--task", "knn")
    assert digits["knn"]["accuracy"] > 0.5
    (root / "red/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert main(["evaluate", str(tmp_path / "bundle"), str(root)]) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert "red/bad.png" in said[-1]
    assert not any("Traceback" in line for line in said)
    skipped = measured(capsys, tmp_path / "bundle", root, "--on-error", "skip", "--task", "knn")
    assert skipped["knn"]["accuracy"] > 0.9


@pytest.mark.slow
def test_a_folder_of_sounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = next(tiny for tiny in AUDIO if tiny.name.startswith("wav2vec2"))
    fmrt.export_model(save_audio(tiny, tmp_path / "model"), tmp_path / "bundle")
    found = measured(capsys, tmp_path / "bundle", sounds(tmp_path / "data"))
    assert set(found) == {"knn", "probe", "few-shot", "clustering", "checks"}
    assert found["probe"]["accuracy"] >= 0.8


@pytest.mark.slow
def test_two_towers_name_what_they_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fmrt.export_model(save_towers("clip", tmp_path / "model"), tmp_path / "bundle")
    root = pictures(tmp_path / "data")
    words = ("--task", "zero-shot", "--template", "a {} picture")
    found = measured(capsys, tmp_path / "bundle", root, *words)
    with fmrt.Embedder(tmp_path / "bundle") as embedder:
        texts = embedder.embed([f"a {name} picture" for name in sorted(COLOURS)], modality="text")
        files = sorted(root.rglob("*.png"))
        images = embedder.embed(files, modality="image")
    nearest = (images @ texts.T).argmax(1)
    right = [sorted(COLOURS)[i] == file.parent.name for i, file in zip(nearest, files, strict=True)]
    assert found["zero-shot"]["accuracy"] == pytest.approx(np.mean(right))


def scenes(root: Path) -> Path:
    """Two squares on grey, in three images: of two colours in the mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        image = np.full((40, 50, 3), 120, np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        for value, (top, left) in enumerate([(4, 5 + i), (20, 28)], 1):
            image[top : top + 14, left : left + 14] = list(COLOURS.values())[value]
            mask[top : top + 14, left : left + 14] = value
        Image.fromarray(image).save(root / f"images/{i}.jpg")
        Image.fromarray(mask).save(root / f"masks/{i}.png")
    return root


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sam")
    fmrt.export_model(save_segmenter("sam", root / "model"), root / "bundle")
    return root / "bundle"


@pytest.mark.slow
def test_masks_are_measured_by_clicks_and_boxes(
    sam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = scenes(tmp_path / "data")
    found = measured(capsys, sam, root, "--points", "1,2")
    assert [*found["segmentation"]] == [
        "IoU at 1 point",
        "IoU at 2 points",
        "best IoU of three at 1 point",
        "IoU by box",
    ]
    segmenter, by_hand = fmrt.Segmenter(sam), []
    for i in range(3):
        image = segmenter.encode(root / f"images/{i}.jpg")
        for truth in objects_of(root / f"masks/{i}.png"):
            rows, columns = np.nonzero(truth)
            inner = (rows - rows.min(), rows.max() - rows)
            depth = np.minimum.reduce([*inner, columns - columns.min(), columns.max() - columns])
            at = int(depth.argmax())
            mask = segmenter.segment(image, points=[(columns[at], rows[at])]).mask()
            by_hand.append((truth & mask).sum() / (truth | mask).sum())
    assert found["segmentation"]["IoU at 1 point"] == pytest.approx(np.mean(by_hand))
    best, one = (
        found["segmentation"][n] for n in ("best IoU of three at 1 point", "IoU at 1 point")
    )
    assert best >= one


class Perfect:
    """A segmenter that gives what is on the object, and one pixel less at the first click."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth, self.clicks = truth, []

    def encode(self, image: object) -> object:
        return image

    def segment_prompts(self, _: object, prompts: list[fmrt.SegmentPrompt]) -> list[object]:
        mask = self.truth.copy()
        first = len(prompts[0].points) == 1
        if first:
            mask[4:9, 4:9] = False
        self.clicks += [list(zip(p.points, p.labels or (), strict=True)) for p in prompts]

        class One:
            @staticmethod
            def mask() -> np.ndarray:
                return mask

            @staticmethod
            def masks() -> np.ndarray:
                return np.stack([mask, mask])

        return [One()]


def test_the_next_click_is_in_the_middle_of_what_is_wrong(tmp_path: Path) -> None:
    root = scenes(tmp_path / "data")
    data = load_dataset(root, ["image"])
    mask = Image.fromarray((np.arange(400).reshape(20, 20) >= 40).astype(np.uint8) * 255)
    for i in range(3):
        mask.save(root / f"masks/{i}.png")
    truth = objects_of(root / "masks/0.png")[0]
    segmenter = Perfect(truth)
    found = overlaps(segmenter, data, (1, 2))
    first = 1 - 25 / truth.sum()
    assert found[0] == pytest.approx([first, 1, first, 1])
    assert segmenter.clicks[1][1] == ((6.0, 6.0), 1)
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1


@pytest.mark.slow
def test_masks_that_do_not_do_are_named(sam: Path, tmp_path: Path) -> None:
    root = scenes(tmp_path / "data")
    (root / "masks/1.png").unlink()
    with pytest.raises(InputError, match=r"images/1\.jpg': it has no mask"):
        fmrt.evaluate(sam, root)
    Image.new("L", (9, 9), 1).save(root / "masks/1.png")
    with pytest.raises(InputError, match="its mask is 9 x 9 pixels, and it is 50 x 40 itself"):
        fmrt.evaluate(sam, root)
    Image.new("L", (50, 40), 0).save(root / "masks/1.png")
    with pytest.raises(InputError, match="it is all black"):
        fmrt.evaluate(sam, root)
    (root / "masks/1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"its mask '.*masks/1\.png': not an image"):
        fmrt.evaluate(sam, root)
    (root / "masks/0.jpg").write_bytes((root / "masks/0.png").read_bytes())
    with pytest.raises(InputError, match=r"images/0\.jpg': it has 2 masks: "):
        fmrt.evaluate(sam, root)
    (root / "masks/0.jpg").rename(root / "masks/alone.jpg")
    # An object may be one pixel.
    line = np.asarray(Image.open(root / "masks/2.png")).copy()
    line[0, 0] = 3
    Image.fromarray(line).save(root / "masks/2.png")
    Image.new("I;16", (50, 40), 1).save(root / "masks/1.png")
    found = fmrt.evaluate(sam, root, on_error="skip", tasks=["segmentation"], points=[1])
    assert found.models[0].measure("segmentation", "IoU by box").n == 5
    assert any("more than 8 bits a pixel" in line for line in found.notes)
    assert any("1 mask without an image: " in line for line in found.notes)
