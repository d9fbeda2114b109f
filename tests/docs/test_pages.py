"""Every command and every block of Python in the README and in docs/ runs as it is written."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement

import dev
from dev import binaries
from docs.notebooks import GUIDES, notebook
from fmrt.cli._program import make_parser
from tests.docs.reading import (
    PAGES,
    REASONS,
    ROOT,
    RUN,
    SHOWN,
    Block,
    blocks,
    inline,
    without_blocks,
)
from tests.docs.stand_ins import minilm, place_all, publish, texts
from tests.runtime.fake_hub import TOKEN, FakeHub
from tests.wheel.environments import fresh, importable, link, site_packages

if sys.platform == "win32":
    pytest.skip("blocks are written for a POSIX shell", allow_module_level=True)

PROGRAMS = Path(sys.executable).parent
# The others, which export a model each, or measure.
FAST = ("README", "CONTRIBUTING", "bundle", "command-line", "jobs", "providers", "python")
NUMBER = r"[-+.\de]+"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def of_pages(function):
    """Run a test for each page."""
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)(function)


def pages_that_run() -> Iterator[object]:
    """Pages, and whether they are slow; guides are notebooks, and run as such."""
    for page in PAGES:
        if page.parent != GUIDES and any(
            block.language in RUN and not block.reason for block in blocks(page)
        ):
            marks = [] if page.stem in FAST else [pytest.mark.slow]
            yield pytest.param(page, id=page.stem, marks=marks)


@of_pages
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in RUN + SHOWN, block.place
        assert block.reason is None or block.reason in REASONS, block.place
    # An indented block would not be found.
    assert not re.search(r"(?m)^ {4,}(\$ )?(fmrt|pip|python3?) ", without_blocks(page))


@pytest.mark.parametrize("page", list(pages_that_run()))
def test_blocks_run_as_they_are_written(page: Path, tmp_path: Path) -> None:
    todo = [block for block in blocks(page) if block.language in RUN and not block.reason]
    text = "\n".join(block.script for block in todo)
    place_all(text, tmp_path)
    with FakeHub().running() as hub:
        publish(text, hub)
        environment = reader(hub, tmp_path)
        for block in todo:
            run(block, tmp_path, environment)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.stem)
def test_a_guide_runs_as_a_notebook(page: Path, tmp_path: Path) -> None:
    made = notebook(page)
    assert len([cell for cell in made.cells if cell.cell_type == "code"]) == len(list(blocks(page)))
    client = NotebookClient(made, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    with FakeHub().running() as hub:
        client.execute(env=reader(hub, tmp_path))
    outputs = [output for cell in made.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", ()) for output in outputs), "it shows plots"


@pytest.mark.slow
def test_the_readme_from_its_installation_on(tmp_path: Path) -> None:
    """In an environment that has the requirements alone: pip's lines too, and the real model."""
    checkout, environment = tmp_path / "checkout", fresh(tmp_path / "venv", ["export"])
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("fmrt", "export"):
        shutil.copytree(ROOT / name, checkout / name)
    link(importlib.metadata.distribution("pip"), site_packages(environment))
    pip = binaries(environment) / "pip"
    pip.write_text('#!/bin/sh\nexec python3 -m pip "$@"\n')
    pip.chmod(0o755)
    texts(checkout / "texts.txt")
    model = checkout / "sentence-transformers/all-MiniLM-L6-v2"
    model.parent.mkdir()
    minilm(model)
    with FakeHub().running() as hub:
        user = reader(hub, tmp_path, binaries(environment))
        for block in blocks(ROOT / "README.md"):
            if block.language in RUN and not block.reason:
                run(block, checkout, user, installs=True)
    assert importable(environment, ["fmrt", "PIL", "soundfile"]) == {"fmrt"}
    assert np.load(checkout / "vectors.npy").shape == (4, 384)


def reader(hub: FakeHub, home: Path, programs: Path = PROGRAMS) -> dict[str, str]:
    """The environment of a reader, who has logged in to the hub."""
    kept = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    return kept | {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "FMRT_CACHE": str(home / ".cache/fmrt"),
        "HF_HOME": str(home / ".cache/huggingface"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }


def run(block: Block, folder: Path, environment: dict[str, str], *, installs: bool = False) -> None:
    """Run one block, with its lines for pip or without, and look for the output that it shows."""
    command = ["python3", "-c"] if block.language == "python" else ["sh", "-ec"]
    script = block.script
    if block.language != "python" and not installs:
        script = re.sub(r"(?m)^pip .*$", "", script)
    done = subprocess.run(
        [*command, script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block.place}:\n{done.stdout}"
    for line in block.output:
        like = NUMBER.join(map(re.escape, re.split(r"\d[\d.e+-]*", line)))
        assert re.search(like, done.stdout), f"{block.place}: {line!r} is not in\n{done.stdout}"


@of_pages
def test_options_of_commands_in_the_text_exist(page: Path) -> None:
    parser = make_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    for code in inline(page):
        name, *words = re.split(r"[\s=]+", code)
        if name == "fmrt" and words and not words[0].isupper():
            known = commands[words[0]]._option_string_actions
            assert [w for w in words if re.match(r"--?[a-z]", w) and w not in known] == [], code
        if name == "python" and words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]), code
        if name == "python3" and words[0] == "dev.py":
            assert words[1] in dev.__doc__, code


@of_pages
def test_what_pip_installs_is_the_project_with_its_extras(page: Path) -> None:
    scripts = [block.script for block in blocks(page) if block.language in ("sh", "console")]
    lines = [line for script in scripts for line in script.splitlines()] + inline(page)
    for line in lines:
        words = shlex.split(line, comments=True) if line.startswith("pip install ") else []
        for word in (word for word in words[2:] if not word.startswith("-")):
            wanted = Requirement(re.sub(r"^\.", "fmrt", word))
            assert wanted.name != "fmrt" or wanted.extras <= set(EXTRAS), line
    for extras in re.findall(r"fmrt\[([\w,]+)\]", page.read_text()):
        assert set(extras.split(",")) <= set(EXTRAS), extras
