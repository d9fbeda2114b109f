"""The committed outcomes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from tests.conformance.outcome import Outcome

RESULTS = Path(__file__).with_name("results.json")


def read_results() -> dict[str, Outcome]:
    """Outcomes by model type."""
    if not RESULTS.is_file():
        return {}
    return {entry["model_type"]: Outcome(**entry) for entry in json.loads(RESULTS.read_text())}


def write_results(known: Mapping[str, Outcome]) -> None:
    """Write outcomes, one a line, in the order of their names."""
    lines = [json.dumps(dataclasses.asdict(known[name])) for name in sorted(known)]
    RESULTS.write_text("[\n" + ",\n".join(lines) + "\n]\n")
