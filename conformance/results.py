"""The committed outcomes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import transformers
from filelock import FileLock

from conformance.outcome import Outcome

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Results:
    """Outcomes by model type, and the version of transformers that they are of."""

    transformers: str = transformers.__version__
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def read_results() -> Results:
    """The outcomes of earlier runs, if any."""
    if not RESULTS.is_file() or not RESULTS.stat().st_size:
        return Results()
    raw = json.loads(RESULTS.read_text(encoding="utf-8"))
    found = (Outcome(**entry) for entry in raw["outcomes"])
    return Results(raw["transformers"], {o.model_type: o for o in found})


def add_result(found: Outcome) -> None:
    """Add one outcome to those that are there, whoever else is writing."""
    with FileLock(RESULTS.with_suffix(".lock")), RESULTS.open("a+", encoding="utf-8") as file:
        results = read_results()
        results.outcomes[found.model_type] = found
        _write(results, file)


def _write(results: Results, file: TextIO) -> None:
    """Write outcomes, one a line, in the order of their names."""
    ordered = [results.outcomes[name] for name in sorted(results.outcomes)]
    lines = ",\n".join(json.dumps(dataclasses.asdict(o)) for o in ordered)
    file.truncate(0)
    file.write(f'{{"transformers": "{results.transformers}", "outcomes": [\n{lines}\n]}}\n')
