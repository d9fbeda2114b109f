"""Passes over a graph in a declared order: what each needs of the graph, and what it leaves there.

A pass is a function that changes a graph in place and returns how often it applied. A `Pipeline`
is refused when it is made if one of its passes would run before what it needs, or after what it
cannot read.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

_log = logging.getLogger(__name__)


class Form(enum.Enum):
    """A form that parts of a graph are in, where they occur at all."""

    PLAIN_ATTENTION = "attention in standard operators, without the converter's copies and branch"
    RMS_NORMS = "root mean square normalization in one operator"
    SCALED_WEIGHTS = "scales of layers in the layers' own weights"
    PACKED_PROJECTIONS = "queries, keys and values of a layer from one product"
    POOLED_LAYER = "the last layer computed for the pooled token alone"
    FUSED_ATTENTION = "attention in one operator for the CPU"
    FLAT_PROJECTIONS = "linear layers over [tokens, features]"
    CUDA_ATTENTION = "attention in one operator for CUDA"


@dataclass(frozen=True)
class Pass:
    """One pass of a pipeline.

    Attributes:
        run: A function that changes a graph in place, and returns how often it applied.
        gives: The form that it leaves.
        needs: The forms that passes before it must have given.
        reads: The forms that it knows; any other that is not needed must come after it.
    """

    run: Callable[..., int]
    gives: Form
    needs: frozenset[Form] = frozenset()
    reads: frozenset[Form] = frozenset()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run.

    Raises:
        ValueError: A pass would run in a form that it does not know, or before one that it needs.
    """

    passes: tuple[Pass, ...]
    starts_from: frozenset[Form] = frozenset()

    def __post_init__(self) -> None:
        given = set(self.starts_from)
        for each in self.passes:
            missing, unknown = each.needs - given, given - each.needs - each.reads
            if missing or unknown:
                problem = "needs" if missing else "cannot read"
                forms = ", ".join(sorted(form.name for form in missing or unknown))
                raise ValueError(f"pass {each.name} {problem} {forms}")
            given.add(each.gives)

    @property
    def gives(self) -> frozenset[Form]:
        """The forms that a graph has after it."""
        return self.starts_from | {each.gives for each in self.passes}

    def apply(self, model: ir.Model, **options: Mapping[str, object]) -> dict[str, int]:
        """Run the passes over a graph in place; a debug log says what each did.

        Args:
            model: The graph.
            options: The keyword arguments for a pass, by the pass's name.

        Returns:
            How often each pass applied, by its name.
        """
        applied = {}
        for each in self.passes:
            before = len(model.graph)
            applied[each.name] = each.run(model, **options.get(each.name, {}))
            counts = applied[each.name], before, len(model.graph)
            _log.debug("%s applied %d times, %d -> %d nodes", each.name, *counts)
        return applied
