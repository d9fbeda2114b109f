"""Start-up, memory and disk: what a process that embeds costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.minilm import MODEL

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
MIB = 1 << 20

# Peak resident memory of this process in bytes. Not getrusage: its ru_maxrss starts, after a fork,
# with the parent's.
PEAK = (
    "int(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    " * 1024"
)
# Each prints the seconds from before the first import to the first vector, and the peak memory.
PREFIX = "import time; start = time.perf_counter(); import sys; "
SUFFIX = f"; print(time.perf_counter() - start, {PEAK})"
FMRT = PREFIX + "import fmrt; fmrt.Embedder(sys.argv[1]).embed(['A first text.'])" + SUFFIX
PEER = (
    PREFIX + "from sentence_transformers import SentenceTransformer as S; "
    "S(sys.argv[1], device='cpu').encode(['A first text.'])" + SUFFIX
)


def first_vector(code: str, model: Path) -> tuple[float, float]:
    """Seconds to the first vector and peak resident bytes, of a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    seconds, memory = run.stdout.split()[-2:]
    return float(seconds), float(memory)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_first_vector(benchmark: Any, bundle: Path) -> None:
    """Import to first vector, self-check included, in processes that take turns."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    first_vector(FMRT, bundle)
    benchmark.pedantic(
        lambda: ours.append(first_vector(FMRT, bundle)),
        setup=lambda: theirs.append(first_vector(PEER, MODEL)),
        rounds=ROUNDS,
    )
    benchmark.extra_info |= {
        "first_vector_seconds": statistics.median(s for s, _ in ours),
        "resident_mib": max(m for _, m in ours) / MIB,
        "sentence_transformers_first_vector_seconds": statistics.median(s for s, _ in theirs),
        "sentence_transformers_resident_mib": max(m for _, m in theirs) / MIB,
    }


def test_large_file(benchmark: Any, bundle: Path, tmp_path: Path) -> None:
    """Peak memory of embedding 200,000 lines, less that of embedding one."""
    lines = [f"Line {i} of a large file, with a few words more." for i in range(200_000)]
    large, small = tmp_path / "large.txt", tmp_path / "small.txt"
    large.write_text("\n".join(lines) + "\n")
    small.write_text(lines[0] + "\n")
    one = _peak(bundle, small, tmp_path / "small.npy")
    many = benchmark.pedantic(lambda: _peak(bundle, large, tmp_path / "large.npy"), rounds=1)
    benchmark.extra_info |= {
        "lines": len(lines),
        "growth_mib": (many - one) / MIB,
        "one_line_mib": one / MIB,
    }


def _peak(bundle: Path, texts: Path, out: Path) -> float:
    code = (
        "import sys; from fmrt.cli import main; status = main(sys.argv[1:]); "
        f"print({PEAK}); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "embed", str(bundle), str(texts), "-o", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return float(run.stdout.split()[-1])


def test_installed_size(benchmark: Any, tmp_path: Path) -> None:
    """Bytes that ``pip install .`` adds to a fresh environment."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    before = _size(tmp_path / "venv")
    options = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    command = [str(python), "-m", "pip", "install", *options, str(ROOT)]
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=1)
    benchmark.extra_info |= {"installed_mib": (_size(tmp_path / "venv") - before) / MIB}


def _size(directory: Path) -> int:
    return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file() and not f.is_symlink())
