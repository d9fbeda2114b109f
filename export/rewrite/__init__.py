"""Graph passes that make a variant faster on one execution provider; one file per pass.

A pipeline declares its passes with what each needs of the graph and what it leaves there. ``graph``
holds what passes share.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from fmrt.export.rewrite.attention import simplify_attention
from fmrt.export.rewrite.cuda_attention import fuse_attention_for_cuda, safest_first
from fmrt.export.rewrite.fused_attention import fuse_attention
from fmrt.export.rewrite.gemm import projections_to_gemm
from fmrt.export.rewrite.graph.masks import Maskings
from fmrt.export.rewrite.layer_scale import fold_layer_scale
from fmrt.export.rewrite.packed_projections import pack_projections
from fmrt.export.rewrite.passes import Form, Pass, Pipeline
from fmrt.export.rewrite.pooled_token import compute_pooled_token_alone
from fmrt.export.rewrite.rms_norm import fuse_rms_norm

_PLAIN = frozenset({Form.PLAIN_ATTENTION})
_NORMS = _PLAIN | {Form.RMS_NORMS}
_POOLED = _NORMS | {Form.POOLED_LAYER}

SIMPLIFY = Pass(simplify_attention, Form.PLAIN_ATTENTION)
NORMS = Pass(fuse_rms_norm, Form.RMS_NORMS, reads=_PLAIN)
POOL = Pass(compute_pooled_token_alone, Form.POOLED_LAYER, reads=_NORMS)
ATTEND = Pass(fuse_attention, Form.FUSED_ATTENTION, needs=_PLAIN, reads=_POOLED)
FLATTEN = Pass(projections_to_gemm, Form.FLAT_PROJECTIONS, reads=_POOLED | {Form.FUSED_ATTENTION})
SCALE = Pass(fold_layer_scale, Form.SCALED_WEIGHTS, reads=_POOLED)
_SCALED = _POOLED | {Form.SCALED_WEIGHTS}
PACK = Pass(pack_projections, Form.PACKED_PROJECTIONS, reads=_SCALED)
ATTEND_ON_CUDA = Pass(
    fuse_attention_for_cuda,
    Form.CUDA_ATTENTION,
    needs=_PLAIN | {Form.PACKED_PROJECTIONS},
    reads=_SCALED,
)

CPU = Pipeline((SIMPLIFY, NORMS, POOL, ATTEND, FLATTEN))
TO_CUDA = Pipeline((SIMPLIFY, NORMS, POOL, SCALE, PACK))
ON_CUDA = Pipeline((ATTEND_ON_CUDA,), TO_CUDA.gives)


def optimize_for_cpu(
    model: ir.Model, embedding: str | None = None, longest: int | None = None
) -> dict[str, int]:
    """Rewrite a portable graph in place for ONNX Runtime's CPU kernels.

    Vectors stay the same within float32 rounding. A pass that finds nothing to do changes nothing.

    Args:
        model: The graph.
        embedding: The name of the only output that is needed, where that is so; others may be
            dropped.
        longest: The number of tokens of the longest text, where that is known.

    Returns:
        How often each pass applied, by name.
    """
    return CPU.apply(
        model,
        compute_pooled_token_alone={"embedding": embedding},
        fuse_attention={"longest": longest},
    )


def graphs_for_cuda(
    portable: ir.Model, precisions: Sequence[str], embedding: str | None = None
) -> Iterator[tuple[str, str, ir.Model]]:
    """Graphs for ONNX Runtime's CUDA kernels, of a portable one, which stays as it is.

    What ONNX Runtime fuses itself when it loads a graph for CUDA (residual sums into layer
    normalization, biases into Gelu) is left to it. Vectors stay the same within rounding, as long
    as texts are padded on the right.

    Args:
        portable: The graph, in fp32.
        precisions: What it is to be computed in, of ``fp32``, ``fp16`` and ``bf16``.
        embedding: The name of the only output that is needed, where that is so; others may be
            dropped.

    Yields:
        A precision, a form of attention, and a graph of it in fp32. Of each precision the form that
        is to be taken, unless a GPU has measured others, comes first.
    """
    graph = portable.clone()
    TO_CUDA.apply(graph, compute_pooled_token_alone={"embedding": embedding})
    maskings = Maskings(graph)
    orders = {precision: safest_first(graph, precision, maskings) for precision in precisions}
    made = {form: graph.clone() for form in dict.fromkeys(itertools.chain(*orders.values()))}
    for form, model in made.items():
        ON_CUDA.apply(model, fuse_attention_for_cuda={"form": form, "maskings": maskings})
    for precision, order in orders.items():
        for form in order:
            yield precision, form, made[form].clone()
