"""What ends a backbone in an embedding, in torch: pooling by mode, then the model's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

if TYPE_CHECKING:
    from fmrt.export.text.source import TextSource

# torch.clamp's lower bound in sentence-transformers' mean pooling.
MIN_TOKENS = 1e-9


@dataclass(frozen=True)
class Pooled:
    """What a pooling mode may read.

    Attributes:
        hidden: The states, float ``[batch, sequence, hidden]``.
        mask: The mask, 1 for tokens to pool, int64 ``[batch, sequence]``: no padding, and no prompt
            where the model leaves it out.
        attention_mask: The mask, 1 for tokens, int64 ``[batch, sequence]``.
    """

    hidden: Tensor
    mask: Tensor
    attention_mask: Tensor

    def weights(self) -> Tensor:
        """The mask as float ``[batch, sequence, 1]``."""
        return self.mask.unsqueeze(-1).to(self.hidden.dtype)

    def at(self, index: Tensor) -> Tensor:
        """Hidden states at one position of each row, ``index`` int64 ``[batch]``."""
        shape = (-1, 1, self.hidden.shape[-1])
        return torch.gather(self.hidden, 1, index.view(-1, 1, 1).expand(shape)).squeeze(1)


def _cls(p: Pooled) -> Tensor:
    # CUDA has a kernel for the largest of floats, and none of integers.
    return p.at(p.mask.to(torch.float32).argmax(dim=1))


def _max(p: Pooled) -> Tensor:
    return p.hidden.masked_fill(p.weights() == 0, float("-inf")).amax(dim=1)


def _mean(p: Pooled) -> Tensor:
    weights = p.weights()
    return (p.hidden * weights).sum(1) / weights.sum(1).clamp(min=MIN_TOKENS)


def _mean_sqrt_length(p: Pooled) -> Tensor:
    weights = p.weights()
    return (p.hidden * weights).sum(1) / weights.sum(1).clamp(min=MIN_TOKENS).sqrt()


def _weighted_mean(p: Pooled) -> Tensor:
    """Token n counts n times, counted from the text's first token (SGPT, arXiv:2202.08904)."""
    weights = p.weights() * p.attention_mask.cumsum(1).unsqueeze(-1).to(p.hidden.dtype)
    return (p.hidden * weights).sum(1) / weights.sum(1).clamp(min=MIN_TOKENS)


def _last_token(p: Pooled) -> Tensor:
    positions = torch.arange(p.mask.shape[1], device=p.mask.device)
    last = (p.mask * positions).amax(dim=1)
    # A row without a token to pool is the zero vector, as in sentence-transformers.
    return p.at(last) * p.mask.amax(dim=1, keepdim=True).to(p.hidden.dtype)


POOLINGS: dict[str, Callable[[Pooled], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


class OwnPooling(Pooling):
    """Pooling by modes of which sentence-transformers has not all, in its own terms.

    It gives the reference vectors of such modes; those of others are sentence-transformers' own.
    """

    POOLING_MODES = tuple(POOLINGS)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, as `Pooling` does."""
        prompt_length = None if self.include_prompt else features.get("prompt_length")
        hidden, mask = features["token_embeddings"], features["attention_mask"]
        modes = (self.pooling_mode,) if isinstance(self.pooling_mode, str) else self.pooling_mode
        return {**features, "sentence_embedding": pool(modes, hidden, mask, prompt_length)}


def make_pooling(dimension: int, modes: Sequence[str], include_prompt: bool = True) -> Pooling:
    """The module of sentence-transformers for some modes, each a key of `POOLINGS`."""
    theirs = set(modes) <= set(Pooling.POOLING_MODES)
    return (Pooling if theirs else OwnPooling)(dimension, tuple(modes), include_prompt)


def pool(
    modes: Sequence[str],
    hidden: Tensor,
    attention_mask: Tensor,
    prompt_length: Tensor | int | None = None,
) -> Tensor:
    """The vectors of all modes, side by side, float ``[batch, modes * hidden]``.

    Args:
        modes: The keys of `POOLINGS`.
        hidden: The states, float ``[batch, sequence, hidden]``.
        attention_mask: The mask, int64 ``[batch, sequence]``.
        prompt_length: The number of tokens at the start to leave out, as one number or int64
            ``[1]``.
    """
    mask = attention_mask
    if prompt_length is not None:
        mask = mask * (attention_mask.cumsum(1) > prompt_length).to(mask.dtype)
    pooled = Pooled(hidden, mask, attention_mask)
    return torch.cat([POOLINGS[mode](pooled) for mode in modes], dim=-1)


class TextHead(torch.nn.Module):
    """Tokens' states to ``sentence_embedding``, as the source's own modules do.

    The layers before and after the pooling are the model's own modules. Pooling is written here,
    with the same result on every mode, since a graph needs it without branches on values and with
    the prompt's length as an input.

    Args:
        source: A loaded model.
    """

    def __init__(self, source: TextSource) -> None:
        super().__init__()
        modules = list(source.model)
        index = next(i for i, m in enumerate(modules) if isinstance(m, Pooling))
        self.before = torch.nn.ModuleList(modules[1:index])
        self.after = torch.nn.ModuleList(modules[index + 1 :])
        self.modes = source.pooling_modes
        self.config = source.transformer.auto_model.config

    def forward(
        self,
        last_hidden_state: Tensor,
        attention_mask: Tensor,
        prompt_length: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Pool a batch.

        Args:
            last_hidden_state: The states, float ``[batch, sequence, hidden]``.
            attention_mask: The mask, int64 ``[batch, sequence]``.
            prompt_length: The number of tokens at the start to leave out of pooling, int64 ``[1]``.
        """
        features = {"token_embeddings": last_hidden_state, "attention_mask": attention_mask}
        for module in self.before:
            features = module(features)
        hidden = features["token_embeddings"]
        features["sentence_embedding"] = pool(self.modes, hidden, attention_mask, prompt_length)
        for module in self.after:
            features = module(features)
        return {"sentence_embedding": features["sentence_embedding"]}


class TextEmbedding(torch.nn.Module):
    """Tokens to ``last_hidden_state`` and ``sentence_embedding``, as the source's own modules do.

    Args:
        source: A loaded model.
        positions: Whether to count positions from a text's first token, so that padding on the
            left does not shift them.
    """

    def __init__(self, source: TextSource, *, positions: bool = False) -> None:
        super().__init__()
        self.transformer = source.transformer
        self.head = TextHead(source)
        self.positions = positions
        self.config = source.transformer.auto_model.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        prompt_length: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            input_ids: The token ids, int64 ``[batch, sequence]``.
            attention_mask: The mask, int64 ``[batch, sequence]``.
            token_type_ids: The token types, int64 ``[batch, sequence]``, for models that take them.
            prompt_length: The number of tokens at the start to leave out of pooling, int64 ``[1]``.
        """
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            features["token_type_ids"] = token_type_ids
        if self.positions:
            features["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
        states = self.transformer(features)["token_embeddings"]
        return {"last_hidden_state": states, **self.head(states, attention_mask, prompt_length)}
