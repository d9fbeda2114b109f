"""Text models: one tower, from a `TextSource`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from fmrt.export.heads import TextEmbedding
from fmrt.export.layout import write_text_configuration
from fmrt.export.padding import EXAMPLE, Padding, find_padding
from fmrt.export.part import Loaded, Part
from fmrt.export.reference import make_reference
from fmrt.export.source import Overrides, TextSource, load_text_source
from fmrt.export.tokenizer import rows_of
from fmrt.manifest import TextInput, Tower
from fmrt.preprocess import TOKENIZER_FILE

TOKEN_INPUTS = ("input_ids", "attention_mask")
TOKEN_TYPES = "token_type_ids"  # noqa: S105  # no password
PROMPT_LENGTH = "prompt_length"
OUTPUTS = ("last_hidden_state", "sentence_embedding")


def load_text(
    name: str, path: Path, revision: str | None, device: str, overrides: Overrides
) -> Loaded:
    """Load a sentence-transformers model or a plain text model.

    Raises:
        ExportError: it cannot be exported, with the reason.
        OptionError: an override that makes no sense for this model.
    """
    source = load_text_source(name, path, revision, device, overrides)
    config = source.transformer.auto_model.config
    padding = find_padding(source)
    return Loaded(
        name,
        path,
        revision,
        source.transformer.auto_model,
        config.model_type,
        tuple(getattr(config, "matryoshka_dimensions", None) or ()),
        (*source.choices, *padding.choices),
        partial(_parts, source, padding),
        partial(write_text_configuration, source),
        (TOKENIZER_FILE,),
    )


def _parts(source: TextSource, padding: Padding) -> Sequence[Part]:
    inputs = example_batch(source)
    tokenizer = source.model.tokenizer
    spec = TextInput(
        max_length=source.max_length,
        pad_token_id=tokenizer.pad_token_id,
        truncation_side=tokenizer.truncation_side,
        prompts=dict(source.model.prompts),
        default_prompt_name=source.model.default_prompt_name,
        include_prompt=source.pooling.include_prompt,
        padded=padding.harmless,
        vocab_size=rows_of(source.transformer.auto_model),
    )
    tower = Tower(
        modality="text",
        inputs=tuple(inputs),
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling="+".join(source.pooling_modes),
        normalize=source.normalize,
        input=spec,
    )
    axes = {name: (0, 1) for name in inputs if name != PROMPT_LENGTH}
    optional = tuple(name for name in inputs if name == PROMPT_LENGTH)
    module = TextEmbedding(source, positions=padding.positions).eval()
    return [Part(tower, "model", module, inputs, axes, make_reference(source), optional)]


def example_batch(source: TextSource) -> dict[str, torch.Tensor]:
    """An example batch: ids and mask, and token types where both tokenizer and model know them."""
    tokenizer = source.model.tokenizer
    device = source.model.device
    taken = inspect.signature(source.transformer.auto_model.forward).parameters
    typed = TOKEN_TYPES in tokenizer.model_input_names and TOKEN_TYPES in taken
    batch = tokenizer(
        list(EXAMPLE),
        padding=True,
        truncation=True,
        max_length=source.max_length,
        return_tensors="pt",
        return_attention_mask=True,
    )
    names = (*TOKEN_INPUTS, TOKEN_TYPES) if typed else TOKEN_INPUTS
    inputs = {name: batch[name].to(device) for name in names}
    if not source.pooling.include_prompt:
        inputs[PROMPT_LENGTH] = torch.zeros(1, dtype=torch.int64, device=device)
    return inputs
