"""Processors of other kinds: this one with fewer instructions, or an emulated one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dev import ROOT

PLACE = ROOT / "build/agreement"
HERE = Path(__file__).parent
Ids = Sequence[Sequence[int]]


class UnavailableError(Exception):
    """There is no such machine here; the message says why."""


@dataclass(frozen=True)
class Python:
    """How a Python with NumPy and ONNX Runtime is started on a machine.

    Attributes:
        command: The program, and what goes before its arguments.
        environment: Variables that it needs.
        slow: Whether every instruction is emulated.
    """

    command: list[str] = field(default_factory=lambda: [sys.executable])
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False

    def run(self, *arguments: str, seconds: int = 500) -> str:
        """What a program printed.

        Raises:
            subprocess.SubprocessError: It failed, or took too long.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        return subprocess.run(
            [*self.command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds,
        ).stdout

    def vectors(
        self, graph: Path, ids: Ids, batch: int = 1, seconds: int = 500
    ) -> NDArray[np.float32]:
        """Float32 ``[texts, dim]``; texts run alone, or so many at once with padding."""
        with tempfile.TemporaryDirectory() as place:
            source, out = f"{place}/ids.npz", f"{place}/vectors.npy"
            np.savez(source, ids=np.concatenate(ids), lengths=[len(row) for row in ids])
            program = str(HERE / "run.py")
            self.run(program, str(graph), source, out, str(batch), seconds=seconds)
            return np.asarray(np.load(out))


def fewer_instructions(level: str, emulated: str) -> Callable[[], Python]:
    """This processor without what a level of `processor.c` lacks.

    Args:
        level: Its name.
        emulated: The processor that QEMU emulates where CPUID cannot be trapped.
    """

    def make() -> Python:
        library, qemu = trap(), shutil.which("qemu-x86_64")
        if library:
            return Python(environment={"LD_PRELOAD": str(library), "PROCESSOR": level})
        if qemu:
            return Python([qemu, "-cpu", emulated, sys.executable], slow=True)
        raise UnavailableError("needs a compiler of C and CPUID that traps, or qemu-x86_64")

    return make


def trap() -> Path | None:
    """The library of `processor.c`; None where it cannot be built or CPUID does not trap."""
    compiler = shutil.which("cc")
    if not (compiler and sys.platform == "linux"):
        return None
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        built = Path(place) / "processor.so"
        command = [compiler, "-O2", "-shared", "-fPIC", str(HERE / "processor.c"), "-o", str(built)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        found = built.replace(PLACE / "processor.so")
    environment = {"LD_PRELOAD": str(found), "PROCESSOR": "sse"}
    works = subprocess.run([sys.executable, "-c", ""], env=environment, check=False)
    return None if works.returncode else found


def webassembly(graph: Path, ids: Ids, seconds: int = 500) -> NDArray[np.float32]:
    """Vectors of onnxruntime-web in Node, each text alone, float32 ``[texts, dim]``.

    Raises:
        UnavailableError: Node is not installed.
        subprocess.SubprocessError: It failed, or took too long.
    """
    if shutil.which("npm") is None:
        raise UnavailableError("needs Node")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(ROOT / "examples/javascript/package.json", place)
        shutil.copy(HERE / "run.mjs", place)
        (place / "ids.json").write_text(json.dumps([[int(i) for i in row] for row in ids]))
        for command in (
            ["npm", "install", "--no-audit", "--no-fund"],
            ["node", "run.mjs", str(graph), "ids.json", "vectors"],
        ):
            subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=seconds)
        return np.fromfile(place / "vectors", np.float32).reshape(len(ids), -1)
