"""What padding does to a text model's vectors, asked of the model itself."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmrt.export.choices import Choice
from fmrt.export.quiet import quiet
from fmrt.export.text.pooling import TextEmbedding
from fmrt.export.text.source import TextSource

# Two texts of different length: a batch of them has padding, and neither axis has size 1.
EXAMPLE = ("An example of a text that a tokenizer splits.", "Another, shorter.")
# How much padding may change a vector by rounding, as a part of its largest component.
UNCHANGED = 1e-5
POSITIONS = "position_ids"


@dataclass(frozen=True)
class Padding:
    """What a model makes of padding.

    Attributes:
        harmless: Whether a text's vector is the same with padding on its right, where the runtime
            pads. It is not for models that see no attention mask, such as FNet, or that cut a batch
            into blocks.
        positions: Whether the graph must count positions from a text's first token, since padding
            on the left, where decoders' tokenizers put it for other consumers, would shift them.
        choices: The choices for the user.
    """

    harmless: bool
    positions: bool
    choices: tuple[Choice, ...]


def find_padding(source: TextSource) -> Padding:
    """Embed a text alone and padded on either side, and compare.

    A decoder that padding on the left changes, whatever the positions, gets a tokenizer that pads
    on the right.
    """
    tokenizer = source.model.tokenizer
    harmless = _unchanged(source, left=False, positions=False)
    choices: list[Choice] = []
    if not harmless:
        reason = "padding changes this model's vectors"
        choices.append(Choice("batches", "texts of one length alone", reason))
    decoder = "lasttoken" in source.pooling_modes or tokenizer.padding_side == "left"
    if not decoder or _unchanged(source, left=True, positions=False):
        return Padding(harmless, False, tuple(choices))
    taken = inspect.signature(source.transformer.auto_model.forward).parameters
    if POSITIONS in taken and _unchanged(source, left=True, positions=True):
        return Padding(harmless, True, tuple(choices))
    if tokenizer.padding_side == "left":
        tokenizer.padding_side = "right"
        reason = "on the left it changes this model's vectors"
        choices.append(Choice("padding", "on the right", reason))
    return Padding(harmless, False, tuple(choices))


def _unchanged(source: TextSource, *, left: bool, positions: bool) -> bool:
    """Whether the shorter text has the same vector alone, and padded to the longer one's length."""
    tokenizer = source.model.tokenizer
    module = TextEmbedding(source, positions=positions).eval()
    texts = tokenizer(list(EXAMPLE), truncation=True, max_length=source.max_length)["input_ids"]
    short = min(texts, key=len)
    more = max(map(len, texts)) - len(short)
    pad = [tokenizer.pad_token_id] * more
    mask = [0] * more + [1] * len(short) if left else [1] * len(short) + [0] * more
    with torch.no_grad(), quiet():
        want = _vector(module, source, short, [1] * len(short))
        got = _vector(module, source, [*pad, *short] if left else [*short, *pad], mask)
    return bool((got - want).abs().max() <= UNCHANGED * want.abs().max())


def _vector(
    module: TextEmbedding, source: TextSource, ids: Sequence[int], mask: Sequence[int]
) -> Tensor:
    rows = {"input_ids": ids, "attention_mask": mask}
    batch = {n: torch.tensor([row], device=source.model.device) for n, row in rows.items()}
    vector: Tensor = module(**batch)["sentence_embedding"]
    return vector
