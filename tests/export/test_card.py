"""The model card: from the source's own, written again with new variants, its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import metadata_load

import fmrt
from fmrt.bundle.card import BEGIN, CARD_FILE, END, PIPELINES, card_for
from fmrt.bundle.card_recipes import recipes
from tests.export.audio import AUDIO, save_audio
from tests.export.models import TINY, save_tiny
from tests.export.strangers import check_paths
from tests.export.test_vision import photographs
from tests.export.vision import VISION, save_vision

FRONT = """---
license: other
license_name: ours
base_model: owner/base
language: [en, de]
model-index: [{name: of the source alone}]
tags: [of-the-source]
---
# Ours
"""
TEXTS = ["a text", "another"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(TINY[0], tmp_path_factory.mktemp("source") / "some-model")
    (folder / CARD_FILE).write_text(FRONT)
    (folder / "LICENSE.txt").write_text("Do what is right.\n")
    (folder / "license_plates.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    said: list[str] = []
    out = tmp_path_factory.mktemp("bundle") / "out"
    fmrt.export_model(model, out, report=said.append)
    assert "  license: other (README.md)" in said
    return out


def test_the_card_states_what_the_source_states(bundle: Path) -> None:
    found = metadata_load(bundle / CARD_FILE)
    tags = found.pop("tags")
    assert found == {
        "license": "other",
        "license_name": "ours",
        "base_model": "owner/base",
        "language": ["en", "de"],
        "library_name": "fmrt",
        "pipeline_tag": "sentence-similarity",
    }
    assert {"onnx", "transformers.js", "sentence-similarity"} <= set(tags)
    assert (bundle / "LICENSE.txt").read_text() == "Do what is right.\n"
    assert not (bundle / "license_plates.json").exists()
    text = (bundle / CARD_FILE).read_text(errors="replace")
    assert "# some-model" in text
    for variant in fmrt.Bundle.open(bundle).manifest.variants:
        assert f"`{variant.file}`" in text
        assert f"{variant.parity.max_abs_error:.1e}" in text


@pytest.mark.parametrize(
    "card", [None, "# no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n"]
)
def test_a_source_without_a_usable_card_is_said_to_have_none(
    card: str | None, tmp_path: Path
) -> None:
    from fmrt.export.load import load_model
    from fmrt.export.text.source import Overrides
    from fmrt.export.writing.source_card import read_source_card

    source = save_tiny(TINY[0], tmp_path / "model")
    if card is not None:
        (source / CARD_FILE).write_text(card)
    stated, choice = read_source_card(load_model(str(source), None, "cpu", Overrides()).origin)
    assert stated == {}
    assert choice.value == "none"
    assert CARD_FILE in choice.origin


def test_new_variants_enter_the_card_and_what_a_user_wrote_stays(
    model: Path, bundle: Path, tmp_path: Path
) -> None:
    path = bundle / CARD_FILE
    path.write_bytes(path.read_bytes().replace(b"owner/base", b"a/b") + b"\n\xff Ask us.\n")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"line {i} of some" for i in range(40)))
    fmrt.quantize_bundle(bundle, ["fp16"], calibration=lines)
    text = path.read_bytes().decode(errors="replace")
    assert "\nbase_model: a/b\n" in text
    assert path.read_bytes().endswith(b"\n\xff Ask us.\n")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "| `fp16-portable` | `onnx/model_fp16.onnx` | all |" in text
    assert "## Quantization" in text
    check_paths(bundle, model)
    own = "# A card of one's own"
    assert card_for(fmrt.Bundle.open(bundle), own, "a/b") == own


def test_examples_give_the_bundles_vectors(bundle: Path) -> None:
    with fmrt.Embedder(bundle) as embedder:
        want = embedder.embed(TEXTS)
    text = (bundle / CARD_FILE).read_text(errors="replace")
    assert len(re.findall(r"^### ", text, re.MULTILINE)) >= 6
    assert 'dtype: "fp32"' in text
    run = 0
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if not re.search("light_embed|fastembed|sentence_transformers", code):
            assert np.abs(vectors(code, bundle) - want).max() < 1e-6
            run += 1
    assert run == 2


def vectors(code: str, bundle: Path) -> np.ndarray:
    """Run an example of the card, with the bundle's directory instead of its hub id."""
    code = code.replace('snapshot_download("ORG/NAME")', repr(str(bundle)))
    scope: dict[str, np.ndarray] = {}
    exec(code.replace('"ORG/NAME"', repr(str(bundle))), scope)
    return scope["vectors"]


@pytest.mark.parametrize("kind", ["images", pytest.param("sounds", marks=pytest.mark.slow)])
def test_examples_of_images_and_sounds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(photographs()[0])
    tone = np.sin(np.arange(16_000) / 20).astype(np.float32)
    soundfile.write("sound.wav", tone, 16_000, subtype="FLOAT")
    vit = next(tiny for tiny in VISION if tiny.model_type == "vit")
    save = {
        "images": lambda at: save_vision(vit, at),
        "sounds": lambda at: save_audio(AUDIO[0], at),
    }
    opened = fmrt.export_model(save[kind](tmp_path / "model"), tmp_path / "bundle")
    found = metadata_load(opened.path / CARD_FILE)
    assert found["pipeline_tag"] == PIPELINES[opened.manifest.modalities]
    codes = [r.code for r in recipes(opened, "ORG/NAME") if r.language == "python"]
    ours, theirs = [vectors(code, opened.path) for code in codes]
    assert np.abs(ours - theirs).max() < 2e-3 * np.abs(ours).max()


def test_a_bundle_on_the_hub_is_quantized_in_a_directory_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import huggingface_hub

    from fmrt.errors import OptionError

    def whole(_: str, local_dir: Path, **__: object) -> None:
        shutil.copytree(bundle, local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _, name, **__: str(bundle / name)
    )
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"line {i} of some" for i in range(40)))
    before = (bundle / "fmrt.json").read_bytes()
    made = fmrt.quantize_bundle("owner/tiny", ["fp16"], calibration=lines)
    assert made.path == Path("tiny")
    assert (bundle / "fmrt.json").read_bytes() == before
    with pytest.raises(OptionError, match="--out"):
        fmrt.quantize_bundle("owner/tiny", ["fp16"])
    copy = fmrt.quantize_bundle(bundle, ["fp16"], calibration=lines, out=tmp_path / "copy")
    assert copy.path == tmp_path / "copy"
    assert (bundle / "fmrt.json").read_bytes() == before
