"""Model types that no table names still do what ``docs/models.md`` says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.outcome import VERIFIED, outcome
from conformance.results import read_results

OUTCOMES = read_results().outcomes
# One of each kind of difference: no attention mask, weights that only the whole encoder-decoder
# finds, a backbone that gives feature maps alone.
ALWAYS = ("fnet", "blenderbot", "hgnet_v2")
# The whole run is python -m conformance; one type in eight stands for it here.
SOME = [name for name in sorted(OUTCOMES) if OUTCOMES[name].status == VERIFIED][::8]


@pytest.mark.filterwarnings("ignore")  # of what a tiny model's odd sizes make of a processor
@pytest.mark.parametrize(
    "model_type",
    [*ALWAYS, *(pytest.param(t, marks=pytest.mark.slow) for t in SOME if t not in ALWAYS)],
)
def test_the_generic_path_still_verifies(model_type: str, tmp_path: Path) -> None:
    found = outcome(model_type, tmp_path)
    assert (found.status, found.reason) == (VERIFIED, "")


def test_every_refusal_is_one_line_of_our_own() -> None:
    faults = {name: o.reason for name, o in OUTCOMES.items() if "not an FmrtError" in o.reason}
    assert faults == {}
