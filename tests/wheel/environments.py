"""Fresh environments, made of what is on this machine already, so that they take seconds.

What is linked is what the extras ask for, directly or not, and nothing else of .venv.
"""

from __future__ import annotations

import subprocess
import sysconfig
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev import CONSTRAINTS, ROOT, VENV, python, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def fresh(place: Path, extras: Iterable[str]) -> Path:
    """An environment that has what fmrt and these extras require, but not fmrt itself."""
    venv.create(place, with_pip=False)
    optional = PROJECT["optional-dependencies"]
    wanted = sum((optional[extra] for extra in extras), PROJECT["dependencies"])
    for found in required(wanted):
        link(found, site_packages(place))
    return place


def required(requirements: Iterable[str]) -> list[Distribution]:
    """Distributions of this environment that requirements ask for, with all that those need."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(line) for line in requirements]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found[name] = distribution(name)
            todo += map(Requirement, found[name].requires or [])
    return list(found.values())


def link(found: Distribution, target: Path) -> None:
    """Make the modules and the metadata of a distribution visible in another environment."""
    for name in top_level(found):
        path = target / name
        if not path.exists():
            source = Path(str(found.locate_file(name)))
            path.symlink_to(source, target_is_directory=source.is_dir())


def top_level(found: Distribution) -> Iterator[str]:
    """Files and folders of a distribution in its site-packages."""
    names = {Path(str(file)).parts[0] for file in found.files or []}
    yield from sorted(names - {"..", "__pycache__"})


def site_packages(environment: Path) -> Path:
    """Where an environment's modules lie."""
    base = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", scheme="venv", vars=base))


def install(environment: Path, *what: str) -> None:
    """Let pip install something, as a user does; what is linked counts as installed."""
    command = (python(VENV), "-m", "pip", "--python", python(environment), "install")
    options = ("--quiet", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS))
    run(*command, *options, *what)


def importable(environment: Path, modules: Iterable[str]) -> set[str]:
    """Those of some modules that an environment has."""
    code = (
        "import importlib.util, sys\n"
        "print(*(m for m in sys.argv[1:] if importlib.util.find_spec(m)))"
    )
    command = [python(environment), "-c", code, *sorted(modules)]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
