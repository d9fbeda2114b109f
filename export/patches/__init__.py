"""Forms of functions of transformers that torch can trace, in the place of some that it cannot.

They take that place while a model is traced, and only then: the reference vectors are those of the
model's own code, and a form that computes something else is found by the verification.
"""

from __future__ import annotations

from functools import cache

from fmrt.export.patches import branches, experts, scans

ALL = {**scans.PATCHES, **experts.PATCHES, **branches.PATCHES}


@cache
def take_patches() -> None:
    """Have transformers' exporter trace these forms."""
    # transformers 4 has no such module.
    from transformers.exporters.utils import register_patch

    for place, make in ALL.items():
        model, _, name = place.partition(".")
        path = f"transformers.models.{model}.modeling_{model}.{name}"
        register_patch("dynamo", path)(make)
