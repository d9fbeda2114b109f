"""Each extra brings what its part of fmrt imports, and no part imports another's."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fmrt
from fmrt.errors import MissingExtraError
from fmrt.system.extras import EXTRAS, needing
from tests.export.audio import AUDIO, save_audio
from tests.export.models import TINY, save_tiny
from tests.export.test_towers import save as save_towers
from tests.export.vision import VISION, save_vision
from tests.wheel.promises import NONE, PROMISES

ROOT = Path(__file__).parents[2]
# Exports one directory after the other, without some modules, and prints what became of each.
SCRIPT = """
import json, sys
from importlib.machinery import PathFinder
ABSENT, find = set(sys.argv[1].split(",")), PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *more, **named: (
        None if name.partition(".")[0] in ABSENT else find(name, *more, **named)
    )
)
import fmrt
said = []
for model in sys.argv[2:]:
    try:
        fmrt.export_model(model, model + "-bundle")
        said.append("exported")
    except fmrt.FmrtError as e:
        said.append(str(e))
print(json.dumps(said))
"""


def exported_without(absent: set[str], *models: Path) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, ",".join(absent), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def modules_of(*extras: str) -> set[str]:
    return set().union(*(EXTRAS[extra] for extra in extras))


def test_the_table_of_extras_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for name in distributions:
            modules.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(module)
    extras = project["optional-dependencies"]
    # `all` joins the others, gpu's package has the runtime's own module, and optimum is export's
    # stand-in where transformers is held at 4.
    assert set(extras) - {"all", "gpu", "optimum"} == set(EXTRAS)
    for extra, known in EXTRAS.items():
        wanted = {re.split(r"[><=,]", line)[0] for line in extras[extra]}
        for name in wanted:
            assert modules[name] & known, f"{name} of {extra}"
        assert all(any(m in modules[name] for name in wanted) for m in known)


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_module_names_the_extra_that_brings_it(extra: str) -> None:
    for module in EXTRAS[extra]:
        with (
            pytest.raises(MissingExtraError, match=f"{module}.*fmrt.{extra}]"),
            needing("x", extra),
        ):
            raise ModuleNotFoundError(name=f"{module}.part")
    with pytest.raises(MissingExtraError, match=r"fmrt\[export,image\]"), needing("x", "export"):
        raise ModuleNotFoundError(name="PIL")
    with pytest.raises(MissingExtraError, match=r"fmrt\[audio\]"), needing("Embedding image"):
        raise ModuleNotFoundError(name="soxr")


def test_a_missing_module_of_no_extra_is_not_blamed_on_one() -> None:
    with pytest.raises(ModuleNotFoundError, match="einops"), needing("x", "export"):
        raise ModuleNotFoundError("No module named 'einops'", name="einops")


@pytest.mark.slow
def test_the_export_extra_alone_exports_texts_and_names_what_others_need(tmp_path: Path) -> None:
    text, image = tmp_path / "text", tmp_path / "image"
    save_tiny(TINY[0], text)
    save_vision(VISION[0], image)
    sound = save_audio(AUDIO[0], tmp_path / "sound")
    said = exported_without(modules_of("image", "audio"), text, image, sound)
    assert said[0] == "exported"
    assert "fmrt[export,image]" in said[1]
    assert "fmrt[export,audio]" in said[2]


@pytest.mark.slow
def test_image_and_audio_need_not_each_other(tmp_path: Path) -> None:
    clip = save_towers("clip", tmp_path / "clip")
    image = tmp_path / "image"
    save_vision(VISION[0], image)
    sound = save_audio(AUDIO[0], tmp_path / "sound")
    assert exported_without(modules_of("audio"), image, clip) == ["exported"] * 2
    assert exported_without(modules_of("image", "parquet"), sound) == ["exported"]


def test_modules_of_the_text_path_import_no_other_modality() -> None:
    """As the first of these tests, in the time that CI has for each change."""
    code = (
        "import sys\n"
        "import fmrt.export.bundle, fmrt.export.towers\n"
        "import fmrt.export.text.tower, fmrt.export.text.static\n"
        f"others = {sorted(modules_of('image', 'audio', 'parquet'))!r}\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.partition('.')[0] == 'fmrt':\n"
        "        for value in list(vars(module).values()):\n"
        "            kind = getattr(value, '__module__', None) or getattr(value, '__name__', '')\n"
        "            if str(kind).partition('.')[0] in others: print(name, kind)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_modules_of_other_modalities_import_none_of_texts() -> None:
    code = (
        "import sys, fmrt.export.bundle, fmrt.export.vision.tower, fmrt.export.audio.tower\n"
        "import fmrt.export.segmentation.segmenter\n"
        "texts = ('fmrt.export.text', 'sentence_transformers')\n"
        "print([name for name in sys.modules if name.startswith(texts)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_script_beside_a_file_named_export_finds_ours(tmp_path: Path) -> None:
    """The user's own file is neither run nor in the way."""
    (tmp_path / "export.py").write_text("raise SystemExit('a stranger was imported')")
    (tmp_path / "quantize.py").write_text("raise SystemExit('a stranger was imported')")
    missing = ["nowhere", "out"]
    (tmp_path / "script.py").write_text(f"import fmrt; fmrt.export_model(*{missing!r})")
    (tmp_path / "nowhere").mkdir()
    for command in (["script.py"], ["-m", "fmrt", "export", *missing]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "config.json" in done.stderr, done.stderr
        assert "stranger" not in done.stderr


def test_the_list_of_packages_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"fmrt": "fmrt", "export": "fmrt.export"}
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in folders.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(found) == sorted(project["packages"])


def test_an_installed_fmrt_owns_no_other_name() -> None:
    names = importlib.metadata.packages_distributions()
    assert {n for n, of in names.items() if "fmrt" in of and not n.startswith("__editable__")} in (
        {"fmrt"},
        set(),  # an editable install that lists no files
    )
    assert fmrt.__name__ == "fmrt"


def test_each_extra_is_tried_from_the_wheel() -> None:
    tried = {name for extras in PROMISES for name in extras.split(",")}
    assert tried == {NONE, *EXTRAS}
