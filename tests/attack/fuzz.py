"""Seeded fuzzing under a budget: what an attack is, how it is run, and how one case is replayed.

An attack is a function that makes a case from a random generator, and a target that takes the case.
The target runs in a process of its own, under limits of time and of resident memory. It ends well
when it returns (it checks its own result, with ``assert``) or raises an `FmrtError` of one line.
All else is a finding: another exception, a dead process, a hang, memory.

    def test_texts(budget, tiny_bundle):
        attack(partial(embedded, tiny_bundle), some_texts, budget)

Every case has a generator of its own, made of the seed and the case's number, so that a finding is
replayed alone: ``FMRT_ATTACK_SEED=7 FMRT_ATTACK_CASE=123 pytest tests/attack -k test_texts``.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from fmrt.errors import FmrtError

# Limits of one case. Its seconds are those of its own work, so that it does not depend on what else
# the machine does; one that waits has so many times as long.
MOST_SECONDS = 10.0
PATIENCE = 6
MOST_GROWTH = 500 << 20
# How often a running case is looked at.
TICK = 0.02
# Distinct findings after which an attack ends; a long one goes on, and lists them all.
ENOUGH = 5
SHOWN = 1000
# Ends well: the target returned, or refused the case in one line.
RIGHT, REFUSED = "right", "refused"


@dataclass(frozen=True)
class Budget:
    """How long to attack, from which seed, and which case alone when one is replayed."""

    seconds: float
    seed: int = 0
    case: int | None = None
    enough: int = ENOUGH

    @classmethod
    def from_environment(cls, seconds: float) -> Budget:
        """``FMRT_ATTACK_SECONDS``, ``_SEED``, ``_CASE`` and ``_ENOUGH``, or the default."""
        given = {
            name: int(value)
            for name in ("seconds", "seed", "case", "enough")
            if (value := os.environ.get(f"FMRT_ATTACK_{name.upper()}"))
        }
        return cls(**{"seconds": seconds, **given})

    def cases(self) -> Iterator[tuple[int, random.Random]]:
        """Number and generator of each case, until the time is up."""
        end = time.monotonic() + self.seconds
        for number in count() if self.case is None else (self.case,):
            yield number, random.Random(f"{self.seed}/{number}")
            if time.monotonic() > end:
                return


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    ``kind`` is `RIGHT`, `REFUSED`, or what is wrong; cases of one ``place`` are one finding.
    """

    kind: str
    text: str = ""
    place: str = ""
    seconds: float = 0.0
    growth: int = 0

    @property
    def good(self) -> bool:
        return self.kind in (RIGHT, REFUSED)


@dataclass
class Findings:
    """What an attack found: cases by kind, and of each kind of fault the first case."""

    cases: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[tuple[int, Any, Outcome]]] = field(default_factory=dict)

    def add(self, number: int, case: Any, outcome: Outcome) -> None:
        self.cases += 1
        self.counts[outcome.kind] = self.counts.get(outcome.kind, 0) + 1
        if not outcome.good:
            self.faults.setdefault((outcome.kind, outcome.place), []).append(
                (number, case, outcome)
            )

    def report(self, seed: int) -> str:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.counts.items()))
        lines = [f"{self.cases} cases with seed {seed}: {kinds}"]
        for (kind, place), found in self.faults.items():
            number, case, outcome = found[0]
            lines += [
                f"- {kind} {place} ({len(found)} cases): {outcome.text[:SHOWN]}",
                f"    {outcome.seconds:.1f} s, {outcome.growth >> 20} MiB; case: {case!r:.{SHOWN}}",
                f"    replay: FMRT_ATTACK_SEED={seed} FMRT_ATTACK_CASE={number}",
            ]
        return "\n".join(lines)


def attack(
    target: Callable[[Any], object],
    make: Callable[[random.Random], Any],
    budget: Budget,
    *,
    most_seconds: float = MOST_SECONDS,
    most_growth: int = MOST_GROWTH,
) -> Findings:
    """Run cases until the budget is spent, and fail with all that was found.

    Args:
        target: A function of a module, or a `functools.partial` of one, which takes a case.
            It is pickled with the case.
        make: makes a case.
        budget: time, seed, and which case.
        most_seconds: a case may take.
        most_growth: bytes that the process may grow in a case.
    """
    findings = Findings()
    with Victim(target, most_seconds, most_growth) as victim:
        for number, generator in budget.cases():
            case = make(generator)
            findings.add(number, case, victim.run(case))
            if len(findings.faults) >= budget.enough:
                break
    report = findings.report(budget.seed)
    print(report)
    assert not findings.faults, report
    return findings


class Victim:
    """A process that runs a target, case after case; a new one takes over when it dies."""

    def __init__(
        self, target: Callable[[Any], object], most_seconds: float, most_growth: int
    ) -> None:
        self._target = target
        self._limits = most_seconds, most_growth
        self._noise = tempfile.NamedTemporaryFile(prefix="attack-")  # noqa: SIM115
        self._process: Any = None

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._noise.close()

    def run(self, case: Any) -> Outcome:
        if self._process is None:
            self._start()
        seconds, growth = self._limits
        watched = psutil.Process(self._process.pid)
        before, worked = watched.memory_info().rss, _work(watched)
        self._connection.send(case)
        start = time.monotonic()
        taken = 0.0
        while not self._connection.poll(TICK):
            waited = time.monotonic() - start
            try:
                grown = watched.memory_info().rss - before
                taken = min(waited, _work(watched) - worked)  # threads work at the same time
            except psutil.NoSuchProcess:
                break
            hangs = taken > seconds or waited > PATIENCE * seconds
            if hangs or grown > growth:
                self._end()
                kind = "hang" if hangs else "memory"
                return Outcome(kind, self._said(), "", waited, grown)
        try:
            kind, text, place, peak = self._connection.recv()
        except (EOFError, OSError):
            code = self._end()
            return Outcome("crash", f"exit code {code}; {self._said()}", "", taken)
        grown = peak - before
        if grown > growth:
            return Outcome("memory", text, place, taken, grown)
        if taken > seconds:
            return Outcome("hang", text, place, taken, grown)
        return Outcome(kind, text, place, taken, grown)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._target, self._noise.name), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection.recv()  # it has imported what it needs

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.join()
        self._connection.close()
        return int(process.exitcode)

    def _said(self) -> str:
        return Path(self._noise.name).read_text(errors="replace")[-SHOWN:]


def _work(process: psutil.Process) -> float:
    """Seconds that all threads of a process have worked."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _serve(connection: Connection, target: Callable[[Any], object], noise: str) -> None:
    """Run the cases that come, each to its outcome."""
    out = os.open(noise, os.O_WRONLY | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    connection.send("ready")
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        _forget_peak()
        os.ftruncate(out, 0)
        connection.send((*_outcome(target, case), _peak()))


def _outcome(target: Callable[[Any], object], case: Any) -> tuple[str, str, str]:
    """Kind, text and place."""
    try:
        target(case)
    except FmrtError as e:
        text = str(e)
        one_line = len(text.splitlines()) == 1 and text.isprintable()
        return (REFUSED if one_line else "not one line"), f"{type(e).__name__}: {text}", ""
    except BaseException as e:
        frames = traceback.extract_tb(e.__traceback__)
        ours = [f for f in frames if re.search(r"\b(fmrt|export)\b", f.filename)] or frames
        last = ours[-1]
        text = "".join(traceback.format_exception_only(e)).strip()
        return type(e).__name__, text, f"{Path(last.filename).name}:{last.lineno}"
    return RIGHT, "", ""


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Most resident bytes since `_forget_peak`; where the system does not tell, those of now."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) << 10
    return int(psutil.Process().memory_info().rss)


class CommandError(FmrtError):
    """The one line of a command that failed."""


def command(*arguments: str, stdin: bytes = b"") -> str:
    """Run ``fmrt`` in this process, as a target does; returns standard output.

    Raises:
        CommandError: the command ended with another exit code than 0, and one line.
    """
    from fmrt.cli import main

    out, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    given, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main(list(arguments))
    finally:
        sys.stdin = given
    out.flush()
    lines = [line for line in errors.getvalue().splitlines() if "warning: " not in line]
    if code:
        assert len(lines) == 1, f"exit code {code} with {lines}"
        raise CommandError(lines[0])
    return out.buffer.getvalue().decode()  # type: ignore[attr-defined]
