"""Text models: one tower, from a `TextSource`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from export.heads import TextEmbedding
from export.layout import write_text_configuration
from export.part import Loaded, Part
from export.reference import make_reference
from export.source import Overrides, TextSource, load_text_source
from fmrt.manifest import TextInput, Tower
from fmrt.preprocess import TOKENIZER_FILE

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PROMPT_LENGTH = "prompt_length"
OUTPUTS = ("last_hidden_state", "sentence_embedding")
# Two texts of different length: the example batch has padding, and neither axis has size 1.
EXAMPLE = ("An example of a text that a tokenizer splits.", "Another, shorter.")


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
    return Loaded(
        name,
        path,
        revision,
        source.transformer.auto_model,
        config.model_type,
        tuple(getattr(config, "matryoshka_dimensions", None) or ()),
        source.choices,
        partial(_parts, source),
        partial(write_text_configuration, source),
        (TOKENIZER_FILE,),
    )


def _parts(source: TextSource) -> Sequence[Part]:
    inputs = example_batch(source)
    tokenizer = source.model.tokenizer
    spec = TextInput(
        max_length=source.max_length,
        pad_token_id=tokenizer.pad_token_id,
        truncation_side=tokenizer.truncation_side,
        prompts=dict(source.model.prompts),
        default_prompt_name=source.model.default_prompt_name,
        include_prompt=source.pooling.include_prompt,
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
    module = TextEmbedding(source).eval()
    return [Part(tower, "model", module, inputs, axes, make_reference(source), optional)]


def example_batch(source: TextSource) -> dict[str, torch.Tensor]:
    """An example batch of the inputs that both the tokenizer and the model know."""
    tokenizer = source.model.tokenizer
    device = source.model.device
    taken = inspect.signature(source.transformer.auto_model.forward).parameters
    names = [name for name in TOKEN_INPUTS if name in tokenizer.model_input_names and name in taken]
    batch = tokenizer(list(EXAMPLE), padding=True, return_tensors="pt")
    inputs = {name: batch[name].to(device) for name in names}
    if not source.pooling.include_prompt:
        inputs[PROMPT_LENGTH] = torch.zeros(1, dtype=torch.int64, device=device)
    return inputs
