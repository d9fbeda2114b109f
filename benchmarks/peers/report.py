"""The peers' table and plot from results.json: ``python -m benchmarks.peers.report``.

Fills the block between the marks in docs/performance.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers.suite import PEERS, RESULTS, ROOT
from benchmarks.report import fill

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
PAGE = ROOT / "docs/performance.md"
PLOT = ROOT / "docs/peers.png"
ORDER = ("natural", "short", "long", "query")
# How many times a peer's speed fmrt is to reach: by kind of text, and peer (None for all others).
BARS = {
    "natural": {
        "sentence-transformers": 2.0,
        "sentence-transformers-onnx": 1.7,
        "fastembed": 9.0,
        "fastembed-8": 3.5,
        "openvino": 1.0,
        None: 1.0,
    },
    "short": {None: 1.0},
    "long": {None: 1.0},
    "query": {None: 1.0},
}
Facts = Mapping[str, Any]


def main() -> int:
    """Write the page and the plot; 1 when a bar was missed."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = "\n".join([_machine(results), "", *_table(results), "", *_bars(results)])
    print(table)
    fill(PAGE, table, BEGIN, END)
    _plot(results)
    return int(any(value < bar for _, _, value, bar, _ in _compared(results)))


def _machine(results: Facts) -> str:
    return (
        f"{results['model']}, {results['cpu']}, {results['cores']} cores, Python "
        f"{results['python']}, {results['date']}. Each cell is the median of interleaved rounds, "
        "in tokens per second without padding. The number in brackets says how many times as fast "
        "fmrt was, as the median of the same rounds. The machine's "
        "peak is the speed of the model's matrix products alone, by the fastest kernel."
    )


def _table(results: Facts) -> Iterator[str]:
    kinds = [kind for kind in ORDER if kind in results["kinds"]]
    titles = [results["kinds"][kind]["title"] for kind in kinds]
    yield f"| | versions | {' | '.join(titles)} |"
    yield "|---" * (2 + len(kinds)) + "|"
    for peer in PEERS:
        if peer.name in results["versions"]:
            versions = ", ".join(f"{n} {v}" for n, v in results["versions"][peer.name].items())
            cells = [_cell(results["kinds"][kind], peer.name) for kind in kinds]
            yield f"| {peer.title} | {versions} | {' | '.join(cells)} |"
    cells = [_peak_cell(results["kinds"][kind]) for kind in kinds]
    if any(cells):
        yield f"| the machine's peak in fp32 | | {' | '.join(cells)} |"


def _peak_cell(kind: Facts) -> str:
    """The speed at which the matrix products alone would run, and the part that fmrt reaches."""
    fraction = _fractions(kind).get("fmrt")
    if fraction is None:
        return ""
    speed = kind["peers"]["fmrt"]["tokens_per_second"] / fraction
    return f"{speed:,.0f} ({fraction:.2f})"


def _fractions(kind: Facts) -> Facts:
    """The part of the machine's peak that each peer reaches; nothing where no peak was measured."""
    found: Facts = kind.get("peak", {}).get("fractions", {})
    return found


def _cell(kind: Facts, peer: str) -> str:
    if peer not in kind["peers"]:
        return ""
    facts = kind["peers"][peer]
    shown = (
        f"{facts['p50_ms']:.2f} ms" if "p50_ms" in facts else f"{facts['tokens_per_second']:,.0f}"
    )
    return shown if peer == "fmrt" else f"{shown} ({kind['fmrt_is_faster'][peer]:.2f})"


def _compared(results: Facts) -> Iterator[tuple[str, str, float, float, float | None]]:
    """Kind, peer, how many times as fast fmrt is, the bar, and what the peak would reach."""
    for name, bars in BARS.items():
        kind = results["kinds"].get(name)
        for peer in PEERS if kind is not None else ():
            if "fmrt" in peer.name or peer.precision != "fp32" or peer.name not in kind["peers"]:
                continue
            bar = bars.get(peer.name, bars[None])
            own = _fractions(kind).get(peer.name)
            most = None if own is None else 1 / own
            yield kind["title"], peer.title, kind["fmrt_is_faster"][peer.name], bar, most


def _bars(results: Facts) -> Iterator[str]:
    missed = [c for c in _compared(results) if c[2] < c[3]]
    total = len(list(_compared(results)))
    yield f"Bars met: {total - len(missed)} of {total}." + (" Missed:" if missed else "")
    for kind, peer, value, bar, most in missed:
        bound = "" if most is None else f"; the machine's peak: {most:.2f}"
        yield f"- {kind}, {peer}: {value:.2f} of {bar:.2f}{bound}"


def _plot(results: Facts) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = [k for k in ORDER if k in results["kinds"] and k != "query"]
    if not kinds:
        return
    peers = [p for p in PEERS if p.name in results["versions"]]
    figure, axes = plt.subplots(1, len(kinds), figsize=(9, 3.2), layout="constrained", sharey=True)
    for axis, name in zip([axes] if len(kinds) == 1 else axes, kinds, strict=True):
        kind = results["kinds"][name]
        values = [kind["peers"].get(p.name, {}).get("tokens_per_second", 0) for p in peers]
        colours = ["tab:orange" if p.environment == "fmrt" else "tab:blue" for p in peers]
        axis.barh([p.title for p in peers], values, color=colours)
        axis.set_title(kind["title"], fontsize=10)
        axis.set_xlabel("tokens per second")
        axis.tick_params(labelsize=8)
    (axes if len(kinds) == 1 else axes[0]).invert_yaxis()
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
