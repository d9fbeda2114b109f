"""The data sets that scikit-learn has on this machine, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import datasets

from fmrt.errors import DataError
from fmrt.evaluation.dataset import ITEMS, LABELLED, Dataset, Side

_WHITE = 16.0


def load_bundled(name: str) -> Dataset:
    """A data set by its name in `BUNDLED`.

    Raises:
        DataError: It has not been downloaded with scikit-learn yet.
    """
    try:
        return BUNDLED[name](name)
    except OSError as e:
        raise DataError(
            f"{name!r} is not on this machine: download it once with "
            f"sklearn.datasets.fetch_{name}()"
        ) from e


def _digits(name: str) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, white on black."""
    found: Any = datasets.load_digits()
    grey = np.round(found.images * (255 / _WHITE)).astype(np.uint8)
    images = list(np.repeat(grey[..., None], 3, axis=-1))
    return _labelled(name, images, [str(t) for t in found.target], "image")


def _newsgroups(name: str) -> Dataset:
    """Posts of twenty newsgroups, in their own split, without headers, footers and quotes."""
    texts: list[Any] = []
    labels: list[str] = []
    split: list[str] = []
    for part in ("train", "test"):
        found: Any = datasets.fetch_20newsgroups(
            subset=part, remove=("headers", "footers", "quotes"), download_if_missing=False
        )
        texts += found.data
        labels += [found.target_names[t] for t in found.target]
        split += [part] * len(found.data)
    return _labelled(name, texts, labels, "text", tuple(split))


def _labelled(
    name: str,
    items: list[Any],
    labels: list[str],
    modality: str,
    split: tuple[str, ...] | None = None,
) -> Dataset:
    side = Side(items, [f"{name} {i}" for i in range(1, len(items) + 1)], modality)
    return Dataset(name, LABELLED, {ITEMS: side}, tuple(labels), split)


BUNDLED: dict[str, Callable[[str], Dataset]] = {
    "digits": _digits,
    "20newsgroups": _newsgroups,
}
