"""A map as a picture that matplotlib draws."""

from __future__ import annotations

import io

import numpy as np

from fmrt.evaluation.map.chart import LIGHT, MARKERS, Chart, mark
from fmrt.system.extras import needing

_SIZE = (9.0, 6.5)
_DPI = 150
_LEAST_AREA, _MOST_AREA = 1.5, 36.0
_AREA_OF_ALL = 24_000
_MOST_NAMED = 25
_LONGEST_NAME = 32


def picture(chart: Chart) -> bytes:
    """The map as PNG, coloured by its first grouping.

    Raises:
        MissingExtraError: The package matplotlib is not installed.
    """
    with needing("Drawing a picture", "evaluate"):
        from matplotlib.figure import Figure  # an extra

    figure = Figure(_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    area = float(np.clip(_AREA_OF_ALL / len(chart.places), _LEAST_AREA, _MOST_AREA))
    grouping = chart.groupings[0]
    counts = grouping.counts
    for group, name in enumerate(grouping.names):
        rows = chart.coordinates[grouping.codes == group]
        color, shape = mark(group)
        axes.scatter(
            rows[:, 0],
            rows[:, 1],
            s=area,
            c=LIGHT[color],
            marker=MARKERS[shape],
            alpha=0.75,
            linewidths=0,
            label=_plain(f"{_short(name)} ({counts[group]:,})") if group < _MOST_NAMED else None,
        )
    axes.set_title(_plain(f"{_short(chart.title)}: {chart.model}"), loc="left", fontsize=11)
    axes.set_xlabel(chart.axes[0], color="#5f6368")
    axes.set_ylabel(chart.axes[1], color="#5f6368")
    axes.tick_params(labelsize=8, colors="#5f6368")
    axes.spines[["top", "right"]].set_visible(False)
    rest = len(grouping.names) - _MOST_NAMED
    title = grouping.name if rest <= 0 else f"{grouping.name}, {rest:,} more not named"
    figure.legend(
        loc="outside right upper", title=title, fontsize=8, frameon=False, markerscale=_scale(area)
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _scale(area: float) -> float:
    """The scale of the legend's marks, which stay visible beside many points."""
    return float(np.sqrt(_MOST_AREA / area))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _plain(text: str) -> str:
    """A text that matplotlib reads neither as mathematics nor as a name to hide."""
    shown = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
