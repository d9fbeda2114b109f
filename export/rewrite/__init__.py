"""Graph passes that make a variant faster on one execution provider; one file a pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from fmrt.export.rewrite.attention import simplify_attention
from fmrt.export.rewrite.cuda_attention import fuse_attention_for_cuda
from fmrt.export.rewrite.cuda_packing import remove_padding
from fmrt.export.rewrite.fused_attention import fuse_attention
from fmrt.export.rewrite.gemm import projections_to_gemm
from fmrt.export.rewrite.pooled_token import compute_pooled_token_alone
from fmrt.export.rewrite.rms_norm import fuse_rms_norm
from fmrt.export.rewrite.sums import fuse_sums


def optimize_for_cpu(
    model: ir.Model, embedding: str | None = None, longest: int | None = None
) -> dict[str, int]:
    """Rewrite a portable graph in place for ONNX Runtime's CPU kernels.

    Vectors stay the same within float32 rounding. A pass that finds nothing to do changes nothing.

    Args:
        model: the graph.
        embedding: name of the only output that is needed, where that is so; others may be dropped.
        longest: tokens of the longest text, where that is known.

    Returns:
        How often each pass applied, by name.
    """
    passes: tuple[Callable[[ir.Model], int], ...] = (
        simplify_attention,
        fuse_rms_norm,
        partial(compute_pooled_token_alone, embedding=embedding),
        partial(fuse_attention, longest=longest),
        projections_to_gemm,
    )
    return {getattr(run, "func", run).__name__: run(model) for run in passes}


def optimize_for_cuda(model: ir.Model) -> dict[str, int]:
    """Rewrite a portable graph in place for ONNX Runtime's CUDA kernels.

    What ONNX Runtime fuses itself when it loads a graph for CUDA (residual sums into layer
    normalization, biases into Gelu) is left to it. Vectors stay the same within rounding, as long
    as texts are padded on the right.

    Returns:
        How often each pass applied, by name.
    """
    passes = (simplify_attention, fuse_attention_for_cuda)
    return {run.__name__: run(model) for run in passes}


def pack_for_cuda(model: ir.Model) -> dict[str, int]:
    """Take the padding out of a graph of texts in place, behind `optimize_for_cuda`.

    The graph may be in fp32 or fp16. Vectors stay the same within rounding, as long as texts are
    padded on the right. The CPU has no kernels for it.

    Returns:
        How often each pass applied, by name; nothing where the padding has to stay.
    """
    packed = remove_padding(model)
    return {"remove_padding": packed, "fuse_sums": fuse_sums(model)} if packed else {}
