"""What a map shows, whatever writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.map.query import QueryModel

# By Okabe and Ito (2008), told apart with any colour vision; their yellow is too light on white.
# Seven colours on light and on dark ground, and seven shapes: together 49 that differ.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b27a00", "#56b4e9", "#5f6368")
DARK = ("#4ea8e0", "#ff8a3d", "#2fc79a", "#e79cc6", "#f0c14b", "#a5dcff", "#c3c7cc")
SHAPES = ("circle", "triangle", "square", "diamond", "plus", "cross", "down")
MARKERS = ("o", "^", "s", "D", "P", "X", "v")


@dataclass(frozen=True)
class Grouping:
    """One way to colour the points.

    Attributes:
        name: of the way, such as ``label``.
        names: of the groups.
        codes: the group of each point, uint16 ``[n]``.
    """

    name: str
    names: Sequence[str]
    codes: NDArray[np.uint16]

    @property
    def counts(self) -> list[int]:
        """Points of each group."""
        return [int(n) for n in np.bincount(self.codes, minlength=len(self.names))]


@dataclass(frozen=True)
class Stored:
    """Vectors that a page holds, for searches.

    Attributes:
        values: int8 ``[n, kept]``; their cosines are about those of the whole vectors.
        dim: of the whole vectors.
        axes: that the whole vectors were turned to, float32 ``[dim, kept]``; None for their own.
    """

    values: NDArray[np.int8]
    dim: int
    axes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Previews:
    """What a page shows of each item.

    Attributes:
        texts: of each point: the text, or where the item comes from.
        mime: of pictures or sounds; None where there are none.
        data: all pictures or sounds, one after the other.
        ends: of each point's part of ``data``, uint32 ``[n]``; an empty part is one left out.
        notes: what is not shown in full, a line each.
    """

    texts: Sequence[str]
    mime: str | None
    data: bytes
    ends: NDArray[np.uint32]
    notes: Sequence[str]


@dataclass(frozen=True)
class Chart:
    """A map.

    Attributes:
        title: the data set's name.
        model: that embedded it, with its variant.
        modality: of the items; of several, the first.
        axes: what each direction is.
        coordinates: float32 ``[n, 2]``.
        places: where each item comes from.
        groupings: ways to colour, the first by default.
        stored: vectors.
        previews: of the items.
        notes: lines for the reader.
        query: the model that embeds queries in the page; None for none.
    """

    title: str
    model: str
    modality: str
    axes: tuple[str, str]
    coordinates: NDArray[np.float32]
    places: Sequence[str]
    groupings: Sequence[Grouping]
    stored: Stored
    previews: Previews
    notes: Sequence[str]
    query: QueryModel | None = None


def mark(group: int) -> tuple[int, int]:
    """Colour and shape of a group, by number: the first seven differ in both."""
    kinds = len(SHAPES)
    return group % kinds, (group + group // kinds) % kinds
