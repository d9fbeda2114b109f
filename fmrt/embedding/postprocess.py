"""What happens to vectors after the graph: truncation, normalization, output precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Vectors
from fmrt.errors import OptionError

# Below it, 127 / scale would overflow float32; such vectors are zero for int8.
SMALLEST_SCALE = 1e-30
LARGEST_HALF = float(np.finfo(np.float16).max)


class Precision(NamedTuple):
    """An output precision: its dtype, elements per dimension, and the conversion.

    ``encode`` takes vectors ``[..., dim]`` and the scale that maps them to [-1, 1].
    """

    name: str
    dtype: np.dtype[Any]
    encode: Callable[[Vectors, float], NDArray[Any]]


def _float16(vectors: Vectors, _: float) -> NDArray[np.float16]:
    largest = float(np.abs(vectors).max(initial=0))
    if largest > LARGEST_HALF:
        raise OptionError(
            f"precision='float16' holds numbers up to {LARGEST_HALF:,.0f}, and a vector has "
            f"{largest:,.0f}: choose float32, or normalize"
        )
    return vectors.astype(np.float16)


def _int8(vectors: Vectors, scale: float) -> NDArray[np.int8]:
    rounded: Vectors = np.clip(np.rint(vectors * (127 / scale)), -127, 127)
    return rounded.astype(np.int8)


def _uint8(vectors: Vectors, scale: float) -> NDArray[np.uint8]:
    return (_int8(vectors, scale).astype(np.int16) + 128).astype(np.uint8)


def _binary(vectors: Vectors, _: float) -> NDArray[np.uint8]:
    """Sign bits, first dimension in the highest bit, as numpy.packbits packs them."""
    return np.packbits(vectors > 0, axis=-1)


PRECISIONS = {
    p.name: p
    for p in (
        Precision("float32", np.dtype(np.float32), lambda vectors, _: vectors),
        Precision("float16", np.dtype(np.float16), _float16),
        Precision("int8", np.dtype(np.int8), _int8),
        Precision("uint8", np.dtype(np.uint8), _uint8),
        Precision("binary", np.dtype(np.uint8), _binary),
    )
}


class Postprocess(NamedTuple):
    """The steps asked for, in order: cut to ``dim``, L2-normalize, convert.

    Attributes:
        dim: Dimensions kept.
        normalize: Whether to bring each vector to unit length.
        precision: The precision of the result.
        scale: Component that int8's 127 stands for, one for the bundle, so that a vector does not
            depend on its batch mates.
    """

    dim: int
    normalize: bool
    precision: Precision
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Elements of a result row: ``dim``, or ``ceil(dim / 8)`` bytes when binary."""
        return -(-self.dim // 8) if self.precision.name == "binary" else self.dim

    def __call__(self, vectors: Vectors) -> NDArray[Any]:
        """Vectors float32 ``[..., model dim]`` to ``[..., width]`` of the precision's dtype."""
        return self.precision.encode(self.shape(vectors), self.scale)

    def shape(self, vectors: Vectors) -> Vectors:
        """The cut and normalized vectors, still float32."""
        cut = vectors if vectors.shape[-1] == self.dim else vectors[..., : self.dim]
        if not self.normalize:
            return cut
        # 1e-12 is torch.nn.functional.normalize's guard against a zero vector.
        norms = np.linalg.norm(cut, axis=-1, keepdims=True)
        unit: Vectors = cut / np.maximum(norms, 1e-12)
        return unit


def make_postprocess(
    *,
    dim: int,
    normalized: bool,
    truncate_dim: int | None,
    normalize: bool | None,
    precision: str,
    reference: Callable[[], Vectors],
) -> Postprocess:
    """Check the options against a bundle and build the steps.

    Args:
        dim: The bundle's dimensions.
        normalized: Whether its graph ends in L2 normalization.
        truncate_dim: Dimensions to keep, or None for all.
        normalize: True or False, or None to do as the model does.
        precision: A key of `PRECISIONS`.
        reference: Gives the bundle's reference vectors, ``[..., dim]``, which set int8's scale.

    Raises:
        OptionError: An option that is unknown or impossible for this bundle.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision={precision!r}; choose from: {', '.join(PRECISIONS)}")
    if truncate_dim is not None and not 1 <= truncate_dim <= dim:
        raise OptionError(f"truncate_dim={truncate_dim}; this model has 1 to {dim} dimensions")
    if normalize is False and normalized:
        raise OptionError(
            "normalize=False, but this bundle's graph normalizes: export it with --no-normalize"
        )
    kept = truncate_dim or dim
    wanted = normalized if normalize is None else normalize
    # The graph's own normalization is exact already; a cut vector needs it again.
    step = Postprocess(kept, wanted and (kept < dim or not normalized), PRECISIONS[precision])
    if precision in ("int8", "uint8"):
        return Postprocess(
            step.dim, step.normalize, step.precision, _scale(step.shape(reference()))
        )
    return step


def _scale(vectors: Vectors) -> float:
    """Largest reference component and a quarter more: unseen texts' outliers rarely reach it."""
    scale = float(np.abs(vectors).max() * 1.25)
    return scale if scale > SMALLEST_SCALE else 1.0
