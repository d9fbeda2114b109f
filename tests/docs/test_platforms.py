"""The table of platforms is what the registry says; versions of Python are declared alike."""

from __future__ import annotations

import tomllib

import pytest
from packaging.specifiers import SpecifierSet

from dev import ROOT, SUPPORTED
from tests.wheel.platforms import EXTRAS, PAGE, SYSTEMS, VERSIONS, UnreachableError, problem


def test_versions_of_python_are_declared_alike() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    found = [f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in allowed]
    first, last = SUPPORTED
    assert found == [f"3.{minor}" for minor in range(first[1], last[1] + 1)] == list(VERSIONS)
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"Python {found[0]} to {found[-1]}" in text, page


@pytest.mark.slow
def test_the_table_is_what_the_registry_says() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if row}
    try:
        for name, system in SYSTEMS.items():
            shown = dict(zip(EXTRAS, cells[name], strict=True))
            assert shown[""] == f"{VERSIONS[0]} to {VERSIONS[-1]}"
            for version in (VERSIONS[0], VERSIONS[-1]):
                assert problem(system, version) is None, (name, version)
        assert shown["all"] != "no"
        mac = "macOS 14, arm64"
        assert (dict(zip(EXTRAS, cells[mac], strict=True))["gpu"]) == "no"
        assert "onnxruntime-gpu" in str(problem(SYSTEMS[mac], VERSIONS[0], "gpu"))
    except UnreachableError as e:
        pytest.skip(f"the registry cannot be asked: {e}")
