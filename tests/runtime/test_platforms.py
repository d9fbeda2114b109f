"""The runtime imports where POSIX is not: on Windows, where these tests may never have run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fmrt
from fmrt import machine
from fmrt.system import cores, huge_pages, memory

# Modules that Windows' Python lacks, and names of modules that it has.
POSIX_ONLY = (
    *("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"),
)
POSIX_NAMES = {
    "os": (
        *("fork", "register_at_fork", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "nice"),
        *("posix_fadvise", "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "fchmod"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "pread", "pwrite"),
    ),
    "signal": ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "alarm"),
}
# Takes away what Windows lacks when others have been imported, then imports all of the runtime.
WITHOUT = """
import importlib, pkgutil, signal, subprocess, sys, os, tempfile, multiprocessing, asyncio
import sqlite3
import numpy, onnxruntime, tokenizers, safetensors.numpy, filelock, tqdm, shtab, huggingface_hub
for name in {modules!r}:
    sys.modules[name] = None
for name, gone in {names!r}.items():
    for one in gone:
        if hasattr(sys.modules[name], one):
            delattr(sys.modules[name], one)
import pytest

import fmrt
from fmrt import machine
from fmrt.system import cores, huge_pages, memory
for found in pkgutil.walk_packages(fmrt.__path__, "fmrt."):
    # mteb itself needs more than a platform without POSIX has here.
    if not found.name.startswith(("fmrt.export", "fmrt.__main__", "fmrt.evaluation.mteb")):
        importlib.import_module(found.name)
print(fmrt.system.cores.available_cores() > 0)
"""


def test_the_runtime_imports_without_posix() -> None:
    code = WITHOUT.format(modules=POSIX_ONLY, names=POSIX_NAMES)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr


# What only Linux, or only POSIX, has: fmrt/system asks for it, with something else where it is not.
LINUX_ONLY = re.compile(
    r"/proc/|/sys/|madvise|mallopt|malloc_trim|sched_[gs]et|os\.name\b|fcntl|os\.sysconf|getrusage"
)


def test_what_is_specific_to_linux_is_in_one_place() -> None:
    package = Path(fmrt.__file__).parent
    files = [file for file in package.rglob("*.py") if file.parent != package / "system"]
    lines = [(f, line) for f in files for line in f.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 10_000
    assert not [f"{f}: {line}" for f, line in lines if LINUX_ONLY.search(line)]


def test_without_linux_the_machine_is_described_and_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    none = tmp_path / "none"
    for module in (cores, huge_pages, memory):
        for name, value in vars(module).items():
            if isinstance(value, Path):
                monkeypatch.setattr(module, name, none)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    found = machine.describe()
    assert (found.cores, found.quota, found.memory.limit) == (3, None, None)
    assert found.cpu
    assert found.memory.total is None or found.memory.total > 0
    assert memory.peak_memory() is None
    with memory.PeakMemory() as peak, huge_pages.huge_pages():
        pass
    assert peak.grown is None


def test_no_module_imports_what_windows_lacks() -> None:
    """The exporter, the tests and the other programs too, where this is a checkout."""
    package, here = Path(fmrt.__file__).parent, Path(__file__).parent
    root = package.parent
    folders = [package, here]
    if (root / "dev.py").is_file():
        folders = [root / name for name in ("fmrt", "export", "tests", "conformance", "benchmarks")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    wrong = [f"{file}: {name}" for file in files for name in _at_the_top(file)]
    assert len(files) > 100
    assert not wrong


def _at_the_top(file: Path) -> list[str]:
    """What Windows lacks of what a module imports without asking for its system first."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    return [name for name in names if name.partition(".")[0] in POSIX_ONLY]
