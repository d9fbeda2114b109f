"""python -m tests.agreement BUNDLE [TEXTS]: the table of `w8` on all machines that are here.

The bundle has `w8` and takes 256 tokens or so. WebAssembly takes longest, and the emulated machine
takes few texts. Each line is printed when it is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fmrt
from tests.agreement.aarch64 import aarch64
from tests.agreement.machines import (
    Python,
    UnavailableError,
    fewer_instructions,
    webassembly,
)
from tests.agreement.texts import token_ids

SAME = 1e-5
SECONDS = 24 * 3600
# What an emulated machine gets: texts, of so many tokens at most.
FEW, SHORT = 200, 20
MACHINES: dict[str, Callable[[], Python]] = {
    "AVX-512 without VNNI": fewer_instructions("avx512", "Skylake-Server"),
    "AVX2 without VNNI and AVX-512": fewer_instructions("avx2", "Haswell"),
    "AVX without AVX2 and FMA": fewer_instructions("avx", "SandyBridge"),
    "neither AVX nor FMA": fewer_instructions("sse", "Nehalem"),
    "aarch64": aarch64,
}


def main() -> None:
    """Print the table."""
    bundle = fmrt.Bundle.open(Path(sys.argv[1]))
    count = int(sys.argv[2]) if sys.argv[2:] else 10_000
    graph, ids = bundle.path / bundle.variant("w8").file, token_ids(bundle.path, count)
    here = Python().vectors(graph, ids, seconds=SECONDS)
    print("| | texts | largest difference | texts over 1e-5 |\n|---|---|---|---|")
    for name, make in MACHINES.items():
        try:
            machine = make()
        except UnavailableError as e:
            print(f"{name}: {e}", file=sys.stderr)
            continue
        short = [i for i, row in enumerate(ids) if len(row) <= SHORT][:FEW]
        chosen = short if machine.slow else list(range(len(ids)))
        there = machine.vectors(graph, [ids[i] for i in chosen], seconds=SECONDS)
        print(row(name, here[chosen], there), flush=True)
    print(row("WebAssembly", here, webassembly(graph, ids, SECONDS)))


def row(name: str, here: NDArray[np.float32], there: NDArray[np.float32]) -> str:
    """A line of the table."""
    worst = np.abs(here - there).max(axis=1)
    return f"| {name} | {len(worst):,} | {worst.max():.1e} | {(worst > SAME).sum()} |"


if __name__ == "__main__":
    main()
