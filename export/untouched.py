"""Whether what is exported gives the vectors that users of transformers get of the directory.

The graph, and the reference vectors that it is verified by, come of one assembly: a processor, a
backbone, a pooling. A fault in it would be in both. So the directory is loaded once more, by
transformers' own classes alone, and called as its documentation says; adapters come later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from fmrt.errors import ExportError
from fmrt.export.loading.backbone import backbone_class, read_config
from fmrt.export.loading.pretrained import load_pretrained
from fmrt.export.quiet import quiet

T = TypeVar("T")
# Of the largest component of a vector: the same operators in the same order give 1e-6.
TOLERANCE = 1e-3


def load_original(path: Path, device: str | torch.device, trust: bool) -> PreTrainedModel:
    """The model of a directory, as transformers loads it."""
    kind = backbone_class(read_config(path, trust))
    model: PreTrainedModel = load_pretrained(
        kind.from_pretrained, path, str(path), trust=trust, dtype=torch.float32
    )
    return model.eval().to(device)


def check_original(
    modality: str,
    items: Sequence[T],
    ours: Callable[[T], Tensor],
    original: Callable[[T], Tensor],
    *,
    unit: bool,
) -> None:
    """Compare vectors, one item at a time.

    Args:
        modality: The modality of the items, for messages.
        items: The items.
        ours: A function that gives the vector ``[dim]`` of what is exported.
        original: A function that gives the vector of transformers, which is not normalized.
        unit: Whether our vectors are normalized.

    Raises:
        ExportError: The vectors differ.
    """
    with torch.no_grad(), quiet():
        for item in items:
            got, want = ours(item), original(item)
            want = normalize(want, dim=-1) if unit else want
            error = torch.inf
            if got.shape == want.shape:
                error = float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))
            if not error <= TOLERANCE:
                raise ExportError(
                    f"what would be exported gives other {modality} vectors than transformers "
                    f"gives of the same directory, by {error:.1e} of the largest component; "
                    "please report it as a fault of fmrt, with the model's name"
                )
