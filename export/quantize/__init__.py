"""Smaller and faster variants of a finished bundle, verified; needs onnx_ir and no torch.

``scheme`` is the table of what can be asked for; ``fp16``, ``int8`` and ``int4`` are a file each.
``sites`` finds the matrix products, ``items`` and ``probe`` calibrate, ``recipe`` and ``rounding``
decide how numbers are rounded, ``emit`` and ``tables`` write it into the graph, ``attention`` and
``steps`` keep padding out of the vectors, ``refusal`` says why a graph failed, and ``bundle`` runs
all that. What was measured, and what was rejected, is in docs/quantization.md.
"""

from fmrt.export.quantize.bundle import MIN_COSINE, check_quality, quantize_bundle
from fmrt.export.quantize.scheme import SCHEMES, named_schemes

__all__ = ["MIN_COSINE", "SCHEMES", "check_quality", "named_schemes", "quantize_bundle"]
