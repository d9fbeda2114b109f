"""The harness itself finds what it is made to find."""

from __future__ import annotations

import os
import random
import time

import pytest

from fmrt.errors import DataError
from tests.attack.fuzz import REFUSED, RIGHT, Budget, Victim, attack
from tests.attack.mutate import mutated_bytes, mutated_json


class TwoLinesError(DataError):
    def __str__(self) -> str:
        return "one line\nand another"


def behave(case: str) -> None:
    match case:
        case "refused":
            raise DataError("one line")
        case "two lines":
            raise TwoLinesError
        case "raw":
            raise KeyError("x")
        case "hang":
            while True:
                pass
        case "wait":
            time.sleep(60)
        case "memory":
            assert b"x" * (300 << 20)
        case "crash":
            os._exit(3)


def test_kinds():
    with Victim(behave, most_seconds=0.5, most_growth=100 << 20) as victim:
        outcomes = {
            case: victim.run(case).kind
            for case in ("right", "refused", "two lines", "raw", "hang", "wait", "memory", "crash")
        }
    assert outcomes == {
        "right": RIGHT,
        "refused": REFUSED,
        "two lines": "not one line",
        "raw": "KeyError",
        "hang": "hang",
        "wait": "hang",
        "memory": "memory",
        "crash": "crash",
    }


def test_a_finding_is_replayed_alone():
    def make(generator: random.Random) -> str:
        return "raw" if generator.random() < 0.2 else "right"

    with pytest.raises(AssertionError, match="FMRT_ATTACK_SEED=7 FMRT_ATTACK_CASE=") as found:
        attack(behave, make, Budget(seconds=5, seed=7, enough=1))
    number = int(str(found.value).rpartition("FMRT_ATTACK_CASE=")[2])
    with pytest.raises(AssertionError, match=r"^1 cases with seed 7: KeyError 1\n"):
        attack(behave, make, Budget(seconds=0, seed=7, case=number))


def test_mutations_follow_their_seed():
    def run(seed: int) -> list[object]:
        generator = random.Random(seed)
        value = {"a": [1, 2, {"b": "c"}], "d": 1.5}
        return [
            [mutated_bytes(generator, b"some bytes " * 9) for _ in range(200)],
            [repr(mutated_json(generator, value)) for _ in range(200)],
        ]

    assert run(1) == run(1) != run(2)
