"""The pipeline around inference: a tiny model, where whatever else costs time shows.

``fmrt embed`` runs in a process of its own on a file of short lines. Its peer is a bare loop:
``InferenceSession.run`` on the same batches, tokenized and padded beforehand, by as many threads.
"""

from __future__ import annotations

import mmap
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmrt
from benchmarks.measuring.tiny import write_lines, write_tiny_model
from benchmarks.measuring.turns import run as run_bare
from benchmarks.measuring.turns import session
from fmrt.bundle.bundle import Bundle
from fmrt.embedding.engine import Engine
from fmrt.embedding.scheduler import BATCH_TOKENS, WINDOW_ITEMS, plan_batches
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.system.cores import available_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ROUNDS = 5
LINES = 200_000
MANY_LINES = 1_000_000
MIB = 1 << 20
SHORT, MIXED = (4, 8), (1, 200)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model."""
    place = tmp_path_factory.mktemp("tiny")
    fmrt.export_model(write_tiny_model(place / "model"), place / "bundle")
    return place / "bundle"


@dataclass(frozen=True)
class Spent:
    """Seconds of the wall's clock, and of all cores."""

    wall: float
    cpu: float


def test_pipeline(benchmark: Any, tiny: Path, tmp_path: Path) -> None:
    """Streaming against the bare loop, and against it with the time of tokenizing added."""
    file = write_lines(tmp_path / "short.txt", LINES, SHORT)
    texts = file.read_text().splitlines()
    bundle = Bundle.open(tiny)
    engine = Engine(bundle)
    model = session(bundle.graph(engine.variant), SLOW_CPU_FUSIONS)
    feeds = list(batches(engine, texts))
    bare: list[Spent] = []
    tokenizing: list[Spent] = []
    ours: list[Spent] = []

    def others() -> None:
        bare.append(spent(lambda: run_bare(model, feeds, available_cores())))
        tokenizing.append(spent(lambda: list(windows(engine, texts))))

    benchmark.pedantic(
        lambda: ours.append(embed(tiny, file, tmp_path / "v.npy")),
        setup=others,
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    engine.close()
    rounds = list(zip(bare, tokenizing, ours, strict=True))[-ROUNDS:]
    benchmark.extra_info |= {
        "lines": LINES,
        "lines_per_second": LINES / statistics.median(o.wall for *_, o in rounds),
        "bare_lines_per_second": LINES / statistics.median(b.wall for b, *_ in rounds),
        "tokenizing_cpu_share": statistics.median(t.cpu / o.cpu for _, t, o in rounds),
        "fraction_of_bare": statistics.median(b.wall / o.wall for b, _, o in rounds),
        "cpu_fraction_of_bare": statistics.median(b.cpu / o.cpu for b, _, o in rounds),
        "cpu_fraction_of_bare_and_tokenizing": statistics.median(
            (b.cpu + t.cpu) / o.cpu for b, t, o in rounds
        ),
    }


def windows(engine: Engine, texts: list[str]) -> Iterator[Any]:
    for start in range(0, len(texts), WINDOW_ITEMS):
        yield engine.preprocess.encode(texts[start : start + WINDOW_ITEMS], "", "truncate")


def batches(engine: Engine, texts: list[str]) -> Iterator[dict[str, np.ndarray]]:
    for tokens in windows(engine, texts):
        for rows in plan_batches(tokens.lengths, BATCH_TOKENS, workers=available_cores()):
            yield tokens.feeds(rows)


def spent(call: Any) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def embed(bundle: Path, file: Path, out: Path) -> Spent:
    """Seconds of ``fmrt embed`` without the model's load: those that it says, and its cores'."""
    code = (
        "import sys, time; from fmrt.cli import main, _stream; o = _stream.embed_stream\n"
        "def timed(*a, **o_):\n"
        "    start = time.process_time(); n = o(*a, **o_); print(time.process_time() - start)\n"
        "    return n\n"
        "_stream.embed_stream = timed; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments(bundle, file, out), "--overwrite"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    seconds = re.search(r" in ([\d.]+) s ", done.stderr)
    assert seconds is not None
    return Spent(float(seconds.group(1)), float(done.stdout))


def arguments(bundle: Path, file: Path, out: Path | str) -> list[str]:
    return ["embed", str(bundle), str(file), "-o", str(out)]


@pytest.mark.parametrize(
    ("kind", "lines", "words"),
    [("short", MANY_LINES, SHORT), ("mixed", 40_000, MIXED)],
    ids=("short", "mixed"),
)
def test_flat_memory(
    benchmark: Any, tiny: Path, tmp_path: Path, kind: str, lines: int, words: tuple[int, int]
) -> None:
    """Resident memory of the last quarter of a job, less that of the first."""
    file = write_lines(tmp_path / "lines.txt", lines, words)
    resident = benchmark.pedantic(lambda: watch(tiny, file, f"{tmp_path}/v/"), rounds=1)
    quarter = len(resident) // 4
    benchmark.extra_info |= {
        "kind": kind,
        "lines": lines,
        "lines_per_second": lines / benchmark.stats.stats.data[0],
        "growth_mib": (max(resident[-quarter:]) - max(resident[:quarter])) / MIB,
        "peak_mib": max(resident) / MIB,
    }


def watch(bundle: Path, file: Path, out: str) -> list[int]:
    """Resident bytes of ``fmrt embed``, ten times per second."""
    process = subprocess.Popen([sys.executable, "-m", "fmrt", *arguments(bundle, file, out)])
    page, seen = mmap.PAGESIZE, []
    while process.poll() is None:
        seen.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page)
        time.sleep(0.1)
    assert process.returncode == 0
    return seen


def test_cache(benchmark: Any, bundle: Path, corpus: list[str], tmp_path: Path) -> None:
    """The same texts again, from the disk: times as fast as computing them."""
    computing: list[float] = []
    with fmrt.Embedder(bundle) as plain, fmrt.Embedder(bundle, cache=tmp_path) as cached:
        first = cached.embed(corpus, on_too_long="truncate")
        want = plain.embed(corpus, on_too_long="truncate")

        def compute() -> None:
            computing.append(spent(lambda: plain.embed(corpus, on_too_long="truncate")).wall)

        again = benchmark.pedantic(
            cached.embed, (corpus,), {"on_too_long": "truncate"}, setup=compute, rounds=ROUNDS
        )
    assert np.array_equal(again, first)
    assert np.abs(again - want).max() < 2e-6
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    benchmark.extra_info |= {
        "texts": len(corpus),
        "ratio": statistics.median(
            c / o for c, o in zip(computing, benchmark.stats.stats.data, strict=True)
        ),
        "bytes_a_text": size / len(corpus),
    }
