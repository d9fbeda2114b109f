"""Models whose code loops over the length of its input, in a form that a graph can hold.

A trace writes such a loop down as often as it ran, for one length alone. Here the loop is a scan,
which is one node of a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn.functional import silu, softplus

from fmrt.export.patches.kind import Patches

SELECTIVE = ("mamba", "falcon_mamba", "jamba", "zamba")


PATCHES: Patches = {
    **{f"{name}.mamba_selective_scan": lambda _: selective_scan for name in SELECTIVE},
    "recurrent_gemma.RecurrentGemmaRglru._rnn_scan": lambda _: linear_scan,
    "rwkv.rwkv_linear_attention": lambda _: weighted_scan,
    "cpmant.CpmAntModel._prepare_attention_mask": lambda _: prompt_mask,
}


def selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,  # noqa: N803  # the names that callers give
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: object,
) -> Tensor | tuple[Tensor, Tensor]:
    """Mamba's recurrence.

    Args:
        hidden_states: The input, ``[batch, width, length]``.
        dt: The steps, ``[batch, width, length]``.
        A: The decay, ``[width, state]``.
        B: What is written, ``[batch, state, length]``.
        C: What is read, ``[batch, state, length]``.
        D: What skips the recurrence, ``[width]``.
        z: The gate, ``[batch, width, length]``.
        delta_bias: What is added to the steps, ``[width]``.
        delta_softplus: Whether the steps go through a softplus.
        return_last_state: Whether the state after the last token is returned too.
    """
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = softplus(dt)

    def step(state: Tensor, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        size, value, write, read = given
        state = torch.exp(A * size[..., None]) * state + (size * value)[..., None] * write[:, None]
        return state, (state @ read[..., None])[..., 0]

    start = torch.zeros_like(hidden_states[:, :, 0, None] * A)
    state, outputs = _scan(step, start, [dt, hidden_states, B, C], axis=-1)
    output = outputs.movedim(0, -1)
    if D is not None:
        output = output + hidden_states * D[None, :, None]
    if z is not None:
        output = output * silu(z)
    return (output, state) if return_last_state else output


def linear_scan(
    _: torch.nn.Module,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """RecurrentGemma's recurrence.

    Args:
        hidden_states: The input, ``[batch, length, width]``.
        recurrent_gate: The decay, ``[batch, length, width]``.
        reset: Where a state starts anew, ``[batch, length, 1]``.
        recurrent_states: The state before the first token, ``[batch, width]``.
        acc_dtype: The type that the state is kept in.
    """
    start = torch.zeros_like(hidden_states[:, 0], dtype=acc_dtype)
    if recurrent_states is not None:
        start = start + recurrent_states

    def step(state: Tensor, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        decay, value = given
        state = decay * state + value
        return state, state.clone()

    gates = (recurrent_gate * ~reset).type(acc_dtype)
    state, outputs = _scan(step, start, [gates, hidden_states.type(acc_dtype)], axis=1)
    return outputs.movedim(0, 1).type(hidden_states.dtype), state


def weighted_scan(
    time_decay: Tensor,
    time_first: Tensor,
    key: Tensor,
    value: Tensor,
    state: Sequence[Tensor] | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """RWKV's mean of values, which are weighted by their keys and by how long ago they were.

    Args:
        time_decay: The logarithm of the decay of a token, ``[width]``.
        time_first: What a token's own key has more, ``[width]``.
        key: The logarithms of the weights, ``[batch, length, width]``.
        value: The values, ``[batch, length, width]``.
        state: The sums of values and of weights and the largest logarithm before the first token.
        return_state: Whether these are returned, as they are after the last token.
    """
    decay = -torch.exp(time_decay)
    zeros = torch.zeros_like(key[:, 0], dtype=torch.float32)
    start = [zeros, zeros.clone(), zeros - 1e38] if state is None else list(state)

    def step(carried: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        total, weight, most = carried
        logarithm, item = given
        largest = torch.maximum(most, logarithm + time_first)
        before, own = torch.exp(most - largest), torch.exp(logarithm + time_first - largest)
        output = (before * total + own * item) / (before * weight + own)
        largest = torch.maximum(most + decay, logarithm)
        before, own = torch.exp(most + decay - largest), torch.exp(logarithm - largest)
        return [before * total + own * item, before * weight + own, largest], output

    last, outputs = _scan(step, start, [key.float(), value.float()], axis=1)
    kept = return_state or state is not None
    return outputs.movedim(0, 1).to(value.dtype), list(last) if kept else None


def _scan(
    step: Callable[[Any, Sequence[Tensor]], tuple[Any, Tensor]],
    start: Any,  # noqa: ANN401  # a tensor, or several
    given: Sequence[Tensor],
    axis: int,
) -> tuple[Any, Tensor]:
    """Scan over an axis of some tensors; the outputs lie along their first one."""
    found: tuple[Any, Tensor] = scan(step, start, [each.movedim(axis, 0) for each in given])
    return found


def prompt_mask(
    model: Any,  # noqa: ANN401  # of transformers
    input_ids: Tensor,
    span: Tensor,
    context: Tensor,
    length: Tensor,
) -> Tensor:
    """CPM-Ant's mask, whose code makes a list of its positions.

    Args:
        model: The model.
        input_ids: The tokens after the prompt's, ``[batch, length]``.
        span: The span of each token, of the same shape.
        context: Whether a token is seen by all, of the same shape.
        length: The number of tokens of each text, ``[batch]``.
    """
    size, device, prompt = input_ids.size(1), input_ids.device, model.prompt_length
    places = torch.arange(size, device=device)
    seen = context[:, None, :] | (context[:, :, None].logical_not() & (places <= places[:, None]))
    seen = seen & (span[:, None, :] == span[:, :, None])
    own = torch.arange(size - prompt, device=device).flip(0)[None] < length[:, None]
    whole = torch.cat((torch.ones_like(own[:, :1]).expand(-1, prompt), own), 1)
    return whole[:, :, None] & whole[:, None] & seen
