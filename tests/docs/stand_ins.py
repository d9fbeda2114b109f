"""What a reader of the docs has, made small: the models, bundles and files that blocks name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from PIL import Image

import fmrt
from tests.export.models import MINILM, TINY, save_tiny
from tests.export.sam import save_segmenter
from tests.export.test_resnet import made
from tests.export.test_towers import save as save_towers
from tests.export.test_vision import photographs
from tests.export.vision import VISION, save_vision
from tests.runtime.fake_hub import FakeHub

PUBLISHED = "ORG/NAME"
TEXTS = ["a text", "another one", "a question that is asked", "and an answer to it"]


def place_all(text: str, folder: Path) -> None:
    """Make in a folder what a page's blocks name, but what they export themselves."""
    for name, make in STAND_INS.items():
        word = rf"(?<![\w./-]){re.escape(name)}(?![\w-])"
        if re.search(word, text) and not re.search(rf"fmrt export \S+ {word}", text):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)


def texts(path: Path) -> None:
    lines = [json.dumps({"text": t}) if path.suffix == ".jsonl" else t for t in TEXTS]
    path.write_text("\n".join(lines) + "\n")


def reviews(path: Path) -> None:
    rows = [
        f"{t} {n},{label}"
        for label, t in zip(("good", "bad"), TEXTS, strict=False)
        for n in range(6)
    ]
    path.write_text("\n".join(["text,label", *rows]) + "\n")


def photo(path: Path) -> None:
    path.write_bytes(photographs()[0])


def large_photo(path: Path) -> None:
    Image.new("RGB", (800, 600), (90, 120, 60)).save(path)


def photos(path: Path) -> None:
    path.mkdir()
    photo(path / "one.jpg")
    photo(path / "two.jpg")


def checkpoint(path: Path) -> None:
    torch.save(made(bottleneck=False).state_dict(), path)


def text_model(path: Path) -> None:
    save_tiny(TINY[0], path)


def minilm(path: Path) -> None:
    path.symlink_to(MINILM)


def text_bundle(path: Path) -> None:
    shutil.copytree(_exported("text"), path)


def patch_bundle(path: Path) -> None:
    shutil.copytree(_exported("patch"), path)


def publish(text: str, hub: FakeHub) -> None:
    """Give the hub the bundle that a page's blocks load from it, but for what they push."""
    hub.tags.add("v1.0")
    if PUBLISHED in text and "fmrt push" not in text:
        hub.add(PUBLISHED, _exported("text"))


@cache
def _exported(output: str) -> Path:
    """A bundle of vectors of texts, or of an image's patches."""
    folder = Path(mkdtemp(prefix="fmrt-docs-"))
    if output == "text":
        fmrt.export_model(save_tiny(TINY[0], folder / "model"), folder / "bundle")
    else:
        model = save_vision(VISION[0], folder / "model")
        fmrt.export_model(model, folder / "bundle", output="patch")
    return folder / "bundle"


STAND_INS: dict[str, Callable[[Path], object]] = {
    "sentence-transformers/all-MiniLM-L6-v2": text_model,
    "openai/clip-vit-base-patch32": lambda path: save_towers("clip", path),
    "./sam-vit-base": lambda path: save_segmenter("sam", path),
    "checkpoint.pth": checkpoint,
    "DIRECTORY": text_model,
    "MODEL": text_model,
    "BUNDLE": text_bundle,
    "bundle/": text_bundle,
    "minilm": text_bundle,
    "patches": patch_bundle,
    "texts.txt": texts,
    "texts.jsonl": texts,
    "reviews.csv": reviews,
    "photo.jpg": large_photo,
    "one.jpg": photo,
    "two.png": photo,
    "photos/": photos,
}
