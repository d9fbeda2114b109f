"""Mixtures of experts whose code loops over the experts that a batch needs.

How many those are, only running it tells. Here each expert computes every token, and a token takes
those that it was routed to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from fmrt.export.patches.kind import Patches

Expert = Callable[[int], Tensor]


def routed(index: Tensor, weights: Tensor, count: int, expert: Expert) -> Tensor:
    """The sum of the experts of each token.

    Args:
        index: The experts of each token, ``[tokens, chosen]``.
        weights: Their weights, of the same shape.
        count: The number of experts.
        expert: A function that gives what an expert makes of all tokens, ``[tokens, width]``.
    """
    shares = [(weights * (index == number)).sum(-1, keepdim=True) for number in range(count)]
    first, *rest = (share * expert(number) for number, share in enumerate(shares))
    return sum(rest, start=first)


def _dbrx(
    experts: Any,  # noqa: ANN401  # of transformers
    hidden_states: Tensor,
    top_k_index: Tensor,
    top_k_weights: Tensor,
) -> Tensor:
    shape = (-1, experts.ffn_hidden_size, experts.hidden_size)
    w1, v1, w2 = (getattr(experts.mlp, name).view(shape) for name in ("w1", "v1", "w2"))
    states = hidden_states.reshape(-1, experts.hidden_size)

    def expert(number: int) -> Tensor:
        found: Tensor = experts.mlp(states, w1[number], v1[number], w2[number])
        return found

    total = routed(top_k_index, top_k_weights, experts.num_experts, expert)
    return total.view(hidden_states.shape[0], -1, experts.hidden_size)


def _longcat(
    experts: Any,  # noqa: ANN401  # of transformers
    hidden_states: Tensor,
    top_k_index: Tensor,
    top_k_weights: Tensor,
) -> Tensor:
    def expert(number: int) -> Tensor:
        if number >= experts.num_routed_experts:
            return hidden_states
        gate, up = linear(hidden_states, experts.gate_up_proj[number]).chunk(2, dim=-1)
        return linear(experts.act_fn(gate) * up, experts.down_proj[number])

    return routed(top_k_index, top_k_weights, experts.total_experts, expert)


def _privacy_filter(
    experts: Any,  # noqa: ANN401  # of transformers
    hidden_states: Tensor,
    router_indices: Tensor,
    routing_weights: Tensor,
) -> Tensor:
    states = hidden_states.float()

    def expert(number: int) -> Tensor:
        inner = states @ experts.gate_up_proj[number].float()
        inner = experts._apply_gate(inner + experts.gate_up_proj_bias[number].float()).float()
        outer: Tensor = inner @ experts.down_proj[number].float()
        return outer + experts.down_proj_bias[number].float()

    weights = routing_weights.to(torch.float32)
    total = routed(router_indices, weights, experts.num_experts, expert)
    return total.to(hidden_states.dtype)


def _switch(
    experts: Any,  # noqa: ANN401  # of transformers
    hidden_states: Tensor,
    selected_experts: Tensor,
    routing_weights: Tensor,
) -> Tensor:
    chosen = selected_experts[:, 0] * routing_weights  # 0 where an expert was full already
    outputs = (experts[f"expert_{n}"](hidden_states) for n in range(experts.num_experts))
    first, *rest = (chosen[:, n, None] * output for n, output in enumerate(outputs))
    return sum(rest, start=first)


PATCHES: Patches = {
    "switch_transformers.SwitchTransformersExperts.forward": lambda _: _switch,
    "dbrx.DbrxExperts.forward": lambda _: _dbrx,
    "longcat_flash.LongcatFlashExperts.forward": lambda _: _longcat,
    "openai_privacy_filter.OpenAIPrivacyFilterExperts.forward": lambda _: _privacy_filter,
}
