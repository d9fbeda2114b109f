"""4-bit weights in blocks of 32 features, for large decoders: a fifth of the bytes.

``MatMulNBits`` (com.microsoft) reads the blocks; activations and sums stay float32. Small encoders
lose too much by it, so the vectors decide: below the target there is no variant.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fmrt.errors import ExportError
from fmrt.export.quantize.context import Context, Made
from fmrt.export.quantize.emit import Writer
from fmrt.export.quantize.sites import Linear, find_sites
from fmrt.export.quantize.tables import quantize_tables
from fmrt.export.rewrite.graph.walking import MICROSOFT

BLOCK = 32
BITS = 4
# Numbers 0 to 15 around 8.
LEVELS, MIDDLE = 15, 8
# Fractions of the scale that clips nothing; a smaller one clips the outliers of a block.
FRACTIONS = np.linspace(0.75, 1.0, 11)


def weights_in_4_bits(context: Context) -> Made:
    """4-bit products, 8-bit tables.

    Raises:
        ExportError: The vectors miss the target.
    """
    model = context.base.clone()
    writer = Writer(model, "int4")
    linears = [linear for site in find_sites(model) for linear in site.linears]
    for linear in linears:
        _write(writer, linear)
    quantize_tables(model, writer)
    model.opset_imports[MICROSOFT] = 1
    RemoveUnusedNodesPass()(model)
    score = context.score(model)
    if score.mean < context.target:
        raise ExportError(
            f"int4 reaches a mean cosine of {score.mean:.4f} (worst {score.worst:.4f}), below "
            f"{context.target}: 4 bits ruin models as small as this one; lower --min-cosine to "
            "have it all the same, or take int8"
        )
    return Made(model, 0, len(linears))


def round_blocks(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round ``[K, N]`` to blocks of 4-bit numbers around 8.

    Returns:
        packed uint8 ``[N, blocks, 16]``, the first number of a byte in its low half, and scales
        float32 ``[N, blocks]``.
    """
    features, columns = weight.shape
    blocks = -(-features // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :features] = weight.T
    grouped = padded.reshape(columns, blocks, BLOCK)
    scale = _scales(grouped)
    units = np.clip(np.round(grouped / scale[..., None]) + MIDDLE, 0, LEVELS).astype(np.uint8)
    packed: NDArray[np.uint8] = units[..., ::2] | (units[..., 1::2] << np.uint8(BITS))
    return packed, scale


def _scales(grouped: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each block with the least squared error.

    It has the sign that brings the largest number to -8, which has no positive counterpart.
    """
    place = np.abs(grouped).argmax(axis=-1)[..., None]
    whole = np.take_along_axis(grouped, place, axis=-1)[..., 0] / -MIDDLE
    whole = np.where(whole == 0, np.float32(1e-8), whole)
    best = np.full(whole.shape, np.inf, np.float32)
    scale = whole.copy()
    for fraction in FRACTIONS:
        tried = (whole * fraction).astype(np.float32)
        rounded = np.clip(np.round(grouped / tried[..., None]), -MIDDLE, LEVELS - MIDDLE)
        error = np.square(rounded * tried[..., None] - grouped).sum(axis=-1)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, tried, scale)
    return np.asarray(scale, np.float32)


def _write(writer: Writer, linear: Linear) -> None:
    packed, scale = round_blocks(linear.weight)
    features, columns = linear.weight.shape
    inputs: list[ir.Value | None] = [
        linear.node.inputs[0],
        writer.constant(packed, like=(linear.source, "blocks")),
        writer.constant(scale, like=(linear.source, "scales")),
        None,
        None,
        None if linear.bias is None else writer.constant(linear.bias),
    ]
    attributes: dict[str, int | float] = {
        "K": features,
        "N": columns,
        "bits": BITS,
        "block_size": BLOCK,
        # Sums in float32: 8-bit activations would save time on some CPUs, and cost quality.
        "accuracy_level": 1,
    }
    y = writer.add(linear.node, "MatMulNBits", inputs, attributes, domain=MICROSOFT)
    y.type, y.shape = linear.output.type, linear.output.shape
    linear.output.replace_all_uses_with(y, replace_graph_outputs=True)
