"""Models whose code branches on values, or computes with what a graph has not."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import relu

from fmrt.export.patches.kind import Patches


def _angles(original: Callable[..., Any]) -> Callable[..., Any]:
    """Cosines and sines next to each other, ``[..., 2]``, in the place of complex numbers."""

    def forward(self: Any, x: Tensor, position_ids: Tensor) -> Tensor:  # noqa: ANN401  # a module
        if "dynamic" in self.rope_type or self.rope_type == "longrope":
            found: Tensor = original(self, x, position_ids)
            return found
        angles = position_ids[..., None].float() * self.inv_freq.float()
        return torch.stack([angles.cos(), angles.sin()], -1) * self.attention_scaling

    return forward


def rotate(xq: Tensor, xk: Tensor, freqs_cis: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding as a product of complex numbers, taken apart.

    Args:
        xq: The queries, ``[batch, length, heads, size]``, pairs next to each other.
        xk: The keys, of the same form.
        freqs_cis: Cosines and sines, ``[batch, length, size / 2, 2]``.
    """
    cos, sin = freqs_cis[:, :, None].unbind(-1)

    def rotated(states: Tensor) -> Tensor:
        real, imaginary = states.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = [real * cos - imaginary * sin, real * sin + imaginary * cos]
        return torch.stack(turned, -1).flatten(-2).type_as(states)

    return rotated(xq), rotated(xk)


def _gaussian_topk(module: Any, inputs: Tensor) -> Tensor:  # noqa: ANN401  # of transformers
    """What is so many standard deviations above the mean; their number is a constant."""
    deviations = NormalDist().inv_cdf(module.activation_sparsity)
    spread = inputs.std(dim=-1, keepdim=True, unbiased=False)
    return relu(inputs - (inputs.mean(-1, keepdim=True) + spread * deviations))


def _cast_before(original: Callable[..., Any]) -> Callable[..., Any]:
    """The router's classifier has its type before, and a trace can change no module's."""

    def forward(self: Any, *args: Any) -> Any:  # noqa: ANN401  # of transformers
        with patch.object(type(self.classifier), "to", lambda module, *_: module):
            return original(self, *args)

    return forward


PATCHES: Patches = {
    "llama4.Llama4TextRotaryEmbedding.forward": _angles,
    "llama4.apply_rotary_emb": lambda _: rotate,
    "gemma3n.Gemma3nTextMLP._gaussian_topk": lambda _: _gaussian_topk,
    "switch_transformers.SwitchTransformersTop1Router.forward": _cast_before,
}
