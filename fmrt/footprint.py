"""What a bundle takes on this machine: memory and time of a process that embeds one item a time."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmrt.errors import BundleError
from fmrt.system.memory import peak_memory

RUNS = 30
MOST_SECONDS = 600


@dataclass(frozen=True)
class Footprint:
    """What one process took to load a bundle and to embed one item after the other.

    Attributes:
        peak_bytes: The most memory that was resident at a time, libraries and interpreter
            included; None where the system does not say.
        first_seconds: Seconds from the import of fmrt to the first vector.
        query_ms: The median time of one item, in milliseconds.
    """

    peak_bytes: int | None
    first_seconds: float
    query_ms: float


def measure_footprint(
    path: Path, variant: str, modality: str, items: Sequence[str | bytes]
) -> Footprint:
    """Measure in a new process, with little memory and one thread, as a small device would.

    Args:
        path: The bundle.
        variant: A variant that the CPU runs.
        modality: The tower's modality.
        items: Items to embed in turns; at least one.

    Raises:
        BundleError: The process failed.
    """
    given = [i if isinstance(i, str) else [base64.b64encode(i).decode()] for i in items]
    question = {"path": str(path), "variant": variant, "modality": modality, "items": given}
    command = [sys.executable, "-c", "from fmrt import footprint; footprint.answer()"]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, and a fixed program
            command,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise BundleError(f"{path} took more than {MOST_SECONDS} s to measure") from e
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise BundleError(f"{path} cannot be measured: {last}")
    return Footprint(**json.loads(done.stdout))


def answer() -> None:
    """Measure what standard input says, and print it: the new process."""
    question: dict[str, Any] = json.load(sys.stdin)
    items = [i if isinstance(i, str) else base64.b64decode(i[0]) for i in question["items"]]
    begun = time.perf_counter()
    from fmrt.embedder import Embedder  # it is measured

    modality = question["modality"]
    with Embedder(
        question["path"], variant=question["variant"], modality=modality, low_memory=True
    ) as embedder:
        embedder.embed(items[:1], modality=modality)
        first = time.perf_counter() - begun
        times = []
        for run in range(RUNS):
            before = time.perf_counter()
            embedder.embed([items[run % len(items)]], modality=modality, dedupe=False)
            times.append(time.perf_counter() - before)
        found = Footprint(peak_memory(), first, statistics.median(times) * 1e3)
    print(json.dumps(asdict(found)))
