"""The runtime's tests with the oldest versions that pyproject.toml allows, and without torch."""

from __future__ import annotations

import shutil
import sys
import tomllib
import venv
from pathlib import Path

from dev import CONSTRAINTS, ROOT, fmrt, install, python, run

# What the runtime can have, and what its own tests need as well.
EXTRAS = ("parquet", "image", "audio", "evaluate")
TESTS = ("hypothesis", "onnx", "psutil", "pytest")
# Later versions of Python have no wheels of the lower bounds.
NEWEST = (3, 13)


def check(wheel: Path, bundles: Path, place: Path) -> None:
    """Run tests/runtime, then verify every variant of freshly exported bundles."""
    if sys.version_info[:2] > NEWEST:
        print("the oldest versions have no wheels for this Python, and were not tried")
        return
    place.mkdir()
    environment, versions = place / "venv", place / "oldest.txt"
    versions.write_text(oldest(), encoding="utf-8")
    venv.create(environment, with_pip=True)
    install(environment, f"{wheel}[{','.join(EXTRAS)}]", *TESTS, versions=versions)
    shutil.copytree(ROOT / "tests/runtime", place / "tests")
    shutil.copy(ROOT / "pyproject.toml", place)
    run(python(environment), "-m", "pytest", "-p", "no:cacheprovider", "tests", cwd=place)
    for bundle in sorted(bundles.iterdir()):
        fmrt("verify", str(bundle), environment=environment, cwd=place)


def oldest() -> str:
    """The pinned versions, but the runtime's requirements at their lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS]
    bounds = [line.replace(">=", "==") for line in sum(extras, project["dependencies"])]
    names = {package(line) for line in bounds}
    pinned = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return "\n".join([*(line for line in pinned if package(line) not in names), *bounds, ""])


def package(requirement: str) -> str:
    """The normalized name before ``==``."""
    return requirement.partition("==")[0].replace("_", "-").lower()
