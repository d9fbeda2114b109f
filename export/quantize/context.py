"""What a quantization scheme is given next to the graph, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from fmrt.arrays import Floats
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Tower
from fmrt.export.quantize.items import Items
from fmrt.export.quantize.probe import Probe
from fmrt.verify import measure

SENSITIVITY, RANGES = 48, 12


@dataclass(frozen=True)
class Score:
    """Cosines of vectors with those of the fp32 graph: their mean, and the worst."""

    mean: float
    worst: float


@dataclass
class Context:
    """One tower's calibration, for every scheme.

    Attributes:
        bundle: The bundle that is being quantized.
        tower: The tower that the graph is of.
        base: The fp32 graph.
        items: The items to calibrate on, and held-out ones.
        target: The mean cosine to reach on the held-out items.
        say: A function that takes lines for the user.
    """

    bundle: Bundle
    tower: Tower
    base: ir.Model
    items: Items
    target: float
    say: Callable[[str], None]
    _expected: dict[int, Floats] = field(default_factory=dict)

    @cached_property
    def calibration(self) -> Probe:
        """Over the calibration items."""
        return Probe(self.bundle, self.tower, self.items.calibration)

    @cached_property
    def held_out(self) -> Probe:
        """Over the held-out items."""
        return Probe(self.bundle, self.tower, self.items.held_out)

    @cached_property
    def sensitivity(self) -> Probe:
        """Over a few calibration items, for measurements that are made often."""
        return Probe(self.bundle, self.tower, self.items.calibration[:SENSITIVITY])

    @cached_property
    def range_probe(self) -> Probe:
        """Over a few items, the longest first, for the range of every tensor."""
        items = sorted(self.items.calibration, key=lambda item: -len(str(item)))
        return Probe(self.bundle, self.tower, items[:RANGES])

    def score(self, model: ir.Model, probe: Probe | None = None) -> Score:
        """Compare a graph with the fp32 one, on the held-out items unless others are given."""
        probe = probe or self.held_out
        if id(probe) not in self._expected:
            self._expected[id(probe)] = probe.vectors(self.base)
        parity = measure(probe.vectors(model), self._expected[id(probe)])
        return Score(parity.mean_cosine, parity.min_cosine)


@dataclass(frozen=True)
class Made:
    """A quantized graph.

    Attributes:
        model: The graph.
        kept: The products in higher precision than the scheme's.
        products: All products that the scheme knows.
        form: The graph's form, where there are others, see `fmrt.bundle.manifest.Variant`.
        forms: The graphs of the others.
    """

    model: ir.Model
    kept: int = 0
    products: int = 0
    form: str | None = None
    forms: Mapping[str, ir.Model] = field(default_factory=dict)
