"""The examples of CONTRIBUTING.md are whole changes: each is applied to a copy, and used there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.docs.reading import ROOT, blocks
from tests.export.models import TINY, save_tiny

PAGE = ROOT / "CONTRIBUTING.md"
EXAMPLES = [block.text for block in blocks(PAGE) if block.language == "diff"]
TEXTS = ("the cat sat", "a red dog ran")
# Places that each example may cost: files that are new, and those that are there.
COSTS = {"decimals": (0, 2), "amin": (0, 1), "coreml": (1, 1), "fvecs": (1, 1)}


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages as they are installed, all examples applied."""
    place = tmp_path_factory.mktemp("patched")
    for name in ("fmrt", "export"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for example in EXAMPLES:
        # Lines may have moved; what an example names must be there.
        command = ["git", "apply", "-C1", "--whitespace=nowarn", "-"]
        subprocess.run(command, input=example, text=True, cwd=place, check=True)
    (place / "export").rename(place / "fmrt/export")
    return place


@pytest.fixture(scope="module")
def exported(patched: Path) -> Path:
    """The same folder, with texts and a bundle that the patched exporter made."""
    save_tiny(TINY[0], patched / "model")
    (patched / "texts.txt").write_text("\n".join(TEXTS))
    run(patched, "export", "model", "bundle", "--pooling", "min")
    return patched


def run(place: Path, *arguments: str, command: tuple[str, ...] = ("-m", "fmrt")) -> str:
    """What a process of the patched fmrt prints."""
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", COSTS)
def test_an_example_costs_what_is_said(name: str) -> None:
    example = next(text for text in EXAMPLES if name in text)
    new = len(re.findall(r"(?m)^--- /dev/null$", example))
    assert (new, len(re.findall(r"(?m)^--- a/", example))) == COSTS[name]


def test_every_example_has_its_test() -> None:
    assert len(EXAMPLES) == len(COSTS)


@pytest.mark.slow
def test_the_option_is_everywhere_and_is_followed(exported: Path) -> None:
    assert "--decimals N" in run(exported, "embed", "--help")
    code = "import fmrt, inspect; print(inspect.signature(fmrt.Embedder.embed))"
    assert "decimals: 'int | None' = None" in run(exported, code, command=("-c",))
    for name, more in {"plain.npy": (), "rounded.npy": ("--decimals", "2")}.items():
        run(exported, "embed", "bundle", "texts.txt", "-o", name, *more)
    plain, rounded = np.load(exported / "plain.npy"), np.load(exported / "rounded.npy")
    np.testing.assert_array_equal(rounded, plain.round(2))
    assert (rounded != plain).any()


def test_the_provider_is_listed_and_can_be_named(patched: Path) -> None:
    found = json.loads(run(patched, "info", "--providers", "--json"))["providers"]
    coreml = next(one for one in found if one["name"] == "coreml")
    assert coreml["onnxruntime"] == "CoreMLExecutionProvider"
    assert coreml["devices"] or "pip install onnxruntime, on macOS" in coreml["problem"]
    assert "coreml" in [one["name"] for one in found]


@pytest.mark.slow
def test_the_output_format_is_written_and_read(exported: Path) -> None:
    for name in ("v.fvecs", "v.npy"):
        run(exported, "embed", "bundle", "texts.txt", "-o", name)
    raw = np.fromfile(exported / "v.fvecs", "<i4").reshape(len(TEXTS), -1)
    want = np.load(exported / "v.npy")
    assert (raw[:, 0] == want.shape[1]).all()
    np.testing.assert_array_equal(raw[:, 1:].view("<f4"), want)
    found = run(exported, "search", "bundle", "v.fvecs", TEXTS[1], "--json")
    assert json.loads(found)["hits"][0]["row"] == 1


@pytest.mark.slow
def test_the_pooling_mode_is_exported_and_verified(exported: Path) -> None:
    manifest = json.loads((exported / "bundle/fmrt.json").read_text())
    assert [tower["pooling"] for tower in manifest["towers"]] == ["min"]
    run(exported, "verify", "bundle")
    code = (
        "import sys, torch; from transformers import AutoModel, AutoTokenizer\n"
        "tokens = AutoTokenizer.from_pretrained('model')(sys.argv[1], return_tensors='pt')\n"
        "model = AutoModel.from_pretrained('model').eval()\n"
        "with torch.no_grad(): print(*model(**tokens).last_hidden_state.amin(1)[0].tolist())"
    )
    want = np.array(run(exported, code, TEXTS[0], command=("-c",)).split(), np.float32)
    run(exported, "embed", "bundle", "texts.txt", "-o", "min.npy")
    np.testing.assert_allclose(np.load(exported / "min.npy")[0], want, atol=1e-5)
