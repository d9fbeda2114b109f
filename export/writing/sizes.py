"""A model's sizes under the names that other runtimes look for in ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")


def with_sizes(config: PretrainedConfig, longest_text: int | None) -> dict[str, Any]:
    """Return the content of ``config.json``, with each of `SIZES` that the model has.

    Families have names of their own for these, such as ``n_embd`` and ``d_model``, and models of
    several towers state them a tower; the text tower's then stand at the top too.

    Args:
        config: The config of the model.
        longest_text: The largest number of tokens of a text, which stands in for
            ``max_position_embeddings`` where positions are relative and no table ends; None for
            models of other items.
    """
    values: dict[str, Any] = config.to_dict()
    inner = [name for name in config.sub_configs if isinstance(values.get(name), dict)]
    for name in inner:
        own = getattr(config, name)
        values[name] = _sizes(own) | values[name]
    main = config.get_text_config() if longest_text else config
    found = _sizes(main)
    if longest_text:
        found.setdefault("max_position_embeddings", longest_text)
    return found | values


def _sizes(config: PretrainedConfig) -> dict[str, int]:
    stated: Mapping[str, Any] = {name: getattr(config, name, None) for name in SIZES}
    found = {name: value for name, value in stated.items() if isinstance(value, int)}
    widths, depths = getattr(config, "hidden_sizes", None), getattr(config, "depths", None)
    # Convolutional and hierarchical models widen from stage to stage.
    if widths:
        found.setdefault("hidden_size", int(widths[-1]))
    if depths:
        found.setdefault("num_hidden_layers", sum(depths))
    return found
