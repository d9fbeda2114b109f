"""Where fmrt installs: systems, processors and versions of Python, by the metadata of all wheels.

python -m tests.wheel.platforms writes the table of docs/platforms.md. uv resolves the requirements
for each system as its own pip would, and takes wheels alone. Nothing is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev import ROOT, python

PAGE = ROOT / "docs/platforms.md"
BEGIN, END = "<!-- written by dev.py platforms -->", "<!-- end -->"
# The oldest system of each kind that has wheels of all that fmrt requires.
SYSTEMS = {
    "Linux x86-64, glibc 2.28": "x86_64-manylinux_2_28",
    "Linux aarch64, glibc 2.28": "aarch64-manylinux_2_28",
    "macOS 14, arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = ("", "all", "gpu")
UNREACHABLE = re.compile(r"failed to fetch|error sending request|connection|timed? ?out", re.I)


class UnreachableError(Exception):
    """The registry does not answer, and so nothing is known."""


def problem(system: str, version: str, extra: str = "") -> str | None:
    """Why wheels do not suffice for a system; None where they do.

    Args:
        system: uv's name of it.
        version: Python's version.
        extra: One of fmrt's, or nothing.

    Raises:
        UnreachableError: The registry cannot be asked.
    """
    command = [
        *(python(), "-m", "uv", "pip", "compile", "--quiet", "--no-header"),
        *("--only-binary", ":all:", "--python-platform", system, "--python-version", version),
        *(("--extra", extra) if extra else ()),
        str(ROOT / "pyproject.toml"),
    ]
    environment = {**os.environ, **MACOS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = " ".join(done.stderr.split())
    if done.returncode and UNREACHABLE.search(said):
        raise UnreachableError(said)
    return said if done.returncode else None


def cell(system: str, extra: str) -> str:
    """The versions of Python that an extra installs on."""
    with ThreadPoolExecutor(len(VERSIONS)) as pool:
        problems = pool.map(lambda version: problem(system, version, extra), VERSIONS)
        found = [v for v, said in zip(VERSIONS, problems, strict=True) if said is None]
    if not found:
        return "no"
    return f"{found[0]} to {found[-1]}" if tuple(found) == VERSIONS else ", ".join(found)


def table() -> str:
    """The table of the page, in Markdown."""
    names = [f"`fmrt[{extra}]`" if extra else "`fmrt`" for extra in EXTRAS]
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for name, system in SYSTEMS.items():
        lines.append(f"| {name} | {' | '.join(cell(system, extra) for extra in EXTRAS)} |")
    return "\n".join(lines)


def write(page: Path = PAGE) -> None:
    """Write the table into its page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    try:
        write()
    except UnreachableError as e:
        sys.exit(f"platforms: the registry cannot be asked: {e}")
