"""Writes the table of ``docs/compatibility.md``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from compat.peers import Peer
from dev import ROOT
from fmrt.system.cores import cpu_name

DOCS = ROOT / "docs/compatibility.md"
BEGIN, END = "<!-- dev.py compat: begin -->", "<!-- dev.py compat: end -->"


@dataclass
class Row:
    """What was found of one library.

    Attributes:
        peer: The library.
        versions: Of its packages.
        differences: The largest difference of a component from fmrt's vectors, by variant.
        long: The least cosine with fmrt's vectors of texts over the limit, by variant.
        reason: Why it was not tried, or "".
        wrong: Why its vectors are others, or "".
    """

    peer: Peer
    versions: dict[str, str] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    long: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    wrong: str = ""


def write(rows: Sequence[Row]) -> None:
    """Put the table between the two marks of the page."""
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    lines = [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {cpu_name()}.",
        "",
        "| consumer | version | takes | fp32 | q8 | fp32, over the limit | q8, over the limit |",
        "|---|---|---|---|---|---|---|",
        *map(_line, rows),
    ]
    DOCS.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")


def _line(row: Row) -> str:
    alone = len(row.versions) == 1
    versions = ", ".join(
        value if alone else f"{name} {value}" for name, value in row.versions.items()
    )
    start = f"| {row.peer.title} | {versions} | {row.peer.how} | "
    if row.reason or row.wrong:
        return f"{start}{row.reason or row.wrong} | | | |"
    differences = [f"{row.differences[v]:.0e}" for v in ("fp32", "q8")]
    return (
        start + " | ".join([*differences, *(f"{row.long[v]:.6f}" for v in ("fp32", "q8"))]) + " |"
    )
