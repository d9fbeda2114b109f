"""``docs/models.md`` says what the tests and the conformance run found."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import fmrt
from conformance.docs import DOCS, render
from conformance.results import read_results
from conformance.scope import model_types
from fmrt.bundle.manifest import Parity
from fmrt.export.quiet import quiet
from fmrt.export.vision.image_processor import ImageProcessor
from fmrt.machine import Availability, Machine, Runtime
from fmrt.measure import Bench
from fmrt.system.memory import Memory
from tests.export.reference import assert_parity
from tests.export.test_towers import save
from tests.export.test_vision import photographs


def test_the_page_of_models_is_whole_and_not_stale() -> None:
    assert sorted(read_results().outcomes) == model_types(), "run python -m conformance"
    assert DOCS.read_text() == render(read_results()), "run python -m conformance --docs"


def test_the_page_of_commands_has_every_key_of_json() -> None:
    page = (DOCS.parent / "command-line.md").read_text()
    named = set(re.findall(r"`(\w+)`", page))
    classes = (Bench, fmrt.ParityReport, Parity, Machine, Runtime, Memory, Availability)
    keys = {field.name for cls in classes for field in dataclasses.fields(cls)} - {"parity"}
    assert keys <= named, keys - named


@pytest.mark.slow
def test_the_zero_shot_page_gives_clips_own_chances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save("clip", tmp_path / "model")
    fmrt.export_model(model, tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    files = {"one.jpg": photographs()[0], "two.png": photographs()[1]}
    for name, data in files.items():
        Path(name).write_bytes(data)
    page = (DOCS.parent / "zero_shot.md").read_text()
    scope: dict[str, np.ndarray] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], scope)
    assert_parity(scope["chances"].astype(np.float32), clip_chances(model, scope, files), 1e-3)
    assert capsys.readouterr().out.count("%") == len(files)


def clip_chances(model: Path, scope: dict, files: dict[str, bytes]) -> np.ndarray:
    texts = [f"a photo of a {label}" for label in scope["labels"]]
    tokens = AutoTokenizer.from_pretrained(model)(texts, padding=True, return_tensors="pt")
    pixels = np.stack([ImageProcessor(model)(data) for data in files.values()])
    with quiet(), torch.no_grad():
        clip = AutoModel.from_pretrained(model).eval()
        clip.logit_scale.data = torch.tensor(float(scope["scale"])).log()
        output = clip(pixel_values=torch.from_numpy(pixels), **tokens)
    return output.logits_per_image.softmax(-1).numpy()
