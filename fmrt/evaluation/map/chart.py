"""The content of a map, whatever writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrt.evaluation.map.query import QueryModel

# The colours are those of Okabe and Ito (2008), which can be told apart with any colour vision.
# Their yellow is too light on white. There are seven colours on a light and on a dark ground, and
# seven shapes. Together they make 49 marks that differ.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b27a00", "#56b4e9", "#5f6368")
DARK = ("#4ea8e0", "#ff8a3d", "#2fc79a", "#e79cc6", "#f0c14b", "#a5dcff", "#c3c7cc")
SHAPES = ("circle", "triangle", "square", "diamond", "plus", "cross", "down")
MARKERS = ("o", "^", "s", "D", "P", "X", "v")


@dataclass(frozen=True)
class Grouping:
    """One way to colour the points.

    Attributes:
        name: The name of the grouping, such as ``label``.
        names: The names of the groups.
        codes: The group of each point, uint16 ``[n]``.
    """

    name: str
    names: Sequence[str]
    codes: NDArray[np.uint16]

    @property
    def counts(self) -> list[int]:
        """The number of points of each group."""
        return [int(n) for n in np.bincount(self.codes, minlength=len(self.names))]


@dataclass(frozen=True)
class Stored:
    """Vectors that a page holds, for searches.

    Attributes:
        values: The vectors, int8 ``[n, kept]``. Their cosines are about those of the whole vectors.
        dim: The number of dimensions of the whole vectors.
        axes: The axes that the whole vectors were turned to, float32 ``[dim, kept]``; None for
            their own axes.
    """

    values: NDArray[np.int8]
    dim: int
    axes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Previews:
    """The parts of each item that a page shows.

    Attributes:
        texts: The text of each point, or the place that the item comes from.
        mime: The MIME type of the pictures or sounds; None where there are none.
        data: All pictures or sounds, one after the other.
        ends: The end of each point's part of ``data``, uint32 ``[n]``. A point without a picture
            or sound has an empty part.
        notes: The lines about what is not shown in full.
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
        title: The data set's name.
        model: The name of the model that embedded it, with its variant.
        modality: The modality of the items; the first one if there are several.
        axes: The name of each direction.
        coordinates: The coordinates of the points, float32 ``[n, 2]``.
        places: The place that each item comes from.
        groupings: The ways to colour the points; the first is the default.
        stored: The vectors for searches.
        previews: The previews of the items.
        notes: Lines for the reader.
        query: The model that embeds queries in the page; None for none.
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
    """The colour and the shape of a group, by number. The first seven groups differ in both."""
    kinds = len(SHAPES)
    return group % kinds, (group + group // kinds) % kinds
