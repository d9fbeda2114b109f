"""Rounds a weight matrix to 8 bits so that the products, not the weights, stay close.

Plain rounding moves each weight by up to half a step. Here the features are rounded one after the
other, and the error that each makes in the products is taken back by those that are not rounded
yet: the method of GPTQ (Frantar et al. 2022), with the second moments of the calibration
activations, as they are after their own quantization.

CPUs without VNNI multiply with ``vpmaddubsw``, which adds the products of two neighbouring features
in 16 bits and saturates. With activations up to 255 that cannot happen while, in every pair of
features 2i and 2i+1, the positive weights sum to at most 128 and the negative ones to at least
-128. The rounding keeps every pair within that. Few pairs are near it, so this costs much less than
7-bit weights would, which are the other way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Floats

LARGEST = 127
# 255 * 128 is below the largest 16-bit integer, 32,767, and -255 * 128 above the smallest.
PAIR = 128
# Features rounded between two updates of the rest.
BLOCK = 64
# The part of the mean second moment that is added to all: directions that calibration hardly saw.
DAMPING = 0.01
# Candidates for a column's scale, as fractions of the one that uses all of 8 bits; at 2 no pair can
# pass the limit, as with 7 bits.
FRACTIONS = np.linspace(0.8, 2.0, 25)


def round_weights(weight: Floats, moments: Floats | None) -> tuple[NDArray[np.int8], Floats]:
    """Round ``[K, N]`` to int8 with one scale per column, within the pairs' limit.

    Args:
        weight: The weight, float32 ``[K, N]``.
        moments: The second moments ``[K, K]`` of the rows that the weight multiplies; None rounds
            to nearest.

    Returns:
        int8 ``[K, N]`` and scales float32 ``[N]``.
    """
    scale = _scales(weight)
    target = weight.astype(np.float64)
    if moments is None:
        return _nearest(target / scale).astype(np.int8), scale.astype(np.float32)
    order = np.argsort(-np.diag(moments), kind="stable")
    propagate = _propagation(moments, order)
    rounded = np.zeros(weight.shape, np.int8)
    work = target[order]
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        errors = np.empty((stop - start, weight.shape[1]))
        for k in range(start, stop):
            row = int(order[k])
            rounded[row] = _limited(np.round(work[k] / scale), rounded, row)
            errors[k - start] = (work[k] - rounded[row] * scale) / propagate[k, k]
            work[k + 1 : stop] -= np.outer(propagate[k, k + 1 : stop], errors[k - start])
        work[stop:] -= propagate[start:stop, stop:].T @ errors
    return rounded, scale.astype(np.float32)


def _scales(weight: Floats) -> NDArray[np.float64]:
    """The scale of each column that gives the least squared error of rounding to nearest."""
    whole = np.maximum(np.abs(weight).max(axis=0) / LARGEST, 1e-12)
    errors = np.empty((len(FRACTIONS), weight.shape[1]))
    for i, fraction in enumerate(FRACTIONS):
        units = weight / (whole * fraction).astype(np.float32)
        error = (_nearest(units) - units) * fraction
        errors[i] = np.einsum("kn,kn->n", error, error)
    return np.asarray(whole * FRACTIONS[errors.argmin(axis=0)], np.float64)


def _nearest(units: NDArray[np.floating]) -> NDArray[np.floating]:
    """The closest numbers within the limits; what a pair has too much is split between the two."""
    rounded = np.clip(np.round(units), -LARGEST, LARGEST)
    even = len(units) // 2 * 2
    first, second = rounded[:even:2], rounded[1:even:2]
    for sign in (1, -1):
        a, b = np.maximum(sign * first, 0), np.maximum(sign * second, 0)
        excess = np.where((a > 0) & (b > 0), np.maximum(a + b - PAIR, 0), 0)
        first -= sign * np.floor(excess / 2)
        second -= sign * np.ceil(excess / 2)
    return rounded


def _propagation(moments: Floats, order: NDArray[np.intp]) -> NDArray[np.float64]:
    """Upper Cholesky factor of the inverse second moments, in the order of rounding."""
    h = moments[np.ix_(order, order)].astype(np.float64)
    h[np.diag_indices_from(h)] += max(DAMPING * float(np.diag(h).mean()), 1e-12)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(h)).T)


def _limited(
    values: NDArray[np.float64], rounded: NDArray[np.int8], row: int
) -> NDArray[np.float64]:
    """Values within what the other feature of the pair, if it is rounded already, leaves."""
    other = row ^ 1
    if other >= len(rounded):
        return np.clip(values, -LARGEST, LARGEST)
    partner = rounded[other].astype(np.int64)
    high = np.minimum(LARGEST, PAIR - np.maximum(partner, 0))
    low = np.maximum(-LARGEST, -PAIR - np.minimum(partner, 0))
    return np.clip(values, low, high)
