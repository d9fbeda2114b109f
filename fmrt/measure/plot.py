"""A benchmark as a picture: latency by length, and computation next to the machine's peak."""

from __future__ import annotations

from pathlib import Path

from fmrt.errors import OptionError
from fmrt.measure.benchmark import Bench

WIDTH, HEIGHT, MARGIN = 640, 260, 50
BLUE, GREY = "#1f77b4", "#999999"


def draw(found: Bench, file: Path) -> None:
    """Write a ``.png`` with matplotlib, or an ``.svg`` or ``.html`` that needs nothing.

    Raises:
        OptionError: A ``.png`` without matplotlib.
    """
    if file.suffix == ".png":
        _png(found, file)
        return
    svg = _svg(found)
    page = f"<!doctype html><meta charset='utf-8'><title>fmrt bench</title>{svg}\n"
    file.write_text(page if file.suffix == ".html" else svg + "\n", encoding="utf-8")


def _title(found: Bench) -> str:
    peak = (
        ""
        if found.peak_fraction is None
        else f", {found.peak_fraction:.0%} of {found.peak_kernel}'s products alone"
    )
    return f"{found.variant}: {found.positions_per_second:,.0f} tokens or patches/s{peak}"


def _png(found: Bench, file: Path) -> None:
    try:
        import matplotlib as mpl  # optional
    except ImportError as e:
        raise OptionError(
            "a .png needs matplotlib: pip install matplotlib, or choose .svg or .html"
        ) from e
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.scatter(found.latency_lengths, [1e3 * s for s in found.latency_seconds], s=8)
    axes.set_xlabel("tokens or patches of an item alone")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.set_title(_title(found))
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _svg(found: Bench) -> str:
    longest = max(found.latency_lengths)
    slowest = 1e3 * max(found.latency_seconds)
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    points = "".join(
        f'<circle cx="{MARGIN + wide * length / longest:.1f}" '
        f'cy="{HEIGHT - MARGIN - high * 1e3 * seconds / slowest:.1f}" r="2.5"/>'
        for length, seconds in zip(found.latency_lengths, found.latency_seconds, strict=True)
    )
    bottom = HEIGHT - MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
        f'<text x="{MARGIN}" y="25" font-size="14">{_title(found)}</text>'
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="{GREY}"/>'
        f'<g fill="{BLUE}" fill-opacity="0.6">{points}</g>'
        f'<text x="{MARGIN - 5}" y="{MARGIN}" text-anchor="end">{slowest:.1f}</text>'
        f'<text x="{MARGIN - 5}" y="{bottom}" text-anchor="end">0 ms</text>'
        f'<text x="{WIDTH - MARGIN}" y="{bottom + 16}" text-anchor="end">{longest:,}</text>'
        f'<text x="{MARGIN}" y="{bottom + 34}">tokens or patches of an item alone</text></svg>'
    )
