"""Text models: one tower, from a `TextSource`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial

import torch

from fmrt.bundle.bundle import Reference
from fmrt.bundle.manifest import TextInput, Tower
from fmrt.export.choices import Overrides
from fmrt.export.loading.fetching import Origin
from fmrt.export.loading.tokenizer import rows_of
from fmrt.export.part import Loaded, TowerPart
from fmrt.export.text.configuration import write_text_configuration
from fmrt.export.text.padding import EXAMPLE, Padding, find_padding
from fmrt.export.text.pooling import TextEmbedding
from fmrt.export.text.reference import embed_references, token_counter
from fmrt.export.text.source import TextSource, load_text_source
from fmrt.preprocess import TOKENIZER_FILE

TOKEN_INPUTS = ("input_ids", "attention_mask")
TYPE_IDS = "token_type_ids"
PROMPT_LENGTH = "prompt_length"
OUTPUTS = ("last_hidden_state", "sentence_embedding")


def load_text(origin: Origin, device: str, overrides: Overrides) -> Loaded:
    """Load a sentence-transformers model or a plain text model.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    source = load_text_source(origin, device, overrides)
    config = source.transformer.auto_model.config
    padding = find_padding(source)
    return Loaded(
        origin=origin,
        backbone=source.transformer.auto_model,
        model_type=config.model_type,
        choices=(*source.choices, *padding.choices),
        parts=partial(_parts, source, padding),
        write_configuration=partial(write_text_configuration, source),
        files=(TOKENIZER_FILE,),
        matryoshka_dims=tuple(getattr(config, "matryoshka_dimensions", None) or ()),
    )


def _parts(source: TextSource, padding: Padding) -> Sequence[TowerPart]:
    inputs = example_batch(source)
    tower = text_tower(source, tuple(inputs), padded=padding.harmless)
    reference = pytorch_reference(source)
    axes = {name: (0, 1) for name in inputs if name != PROMPT_LENGTH}
    optional = tuple(name for name in inputs if name == PROMPT_LENGTH)
    module = TextEmbedding(source, positions=padding.positions).eval()
    return [
        TowerPart(
            tower=tower,
            stem="model",
            module=module,
            inputs=inputs,
            axes=axes,
            reference=reference,
            optional=optional,
        )
    ]


def text_tower(
    source: TextSource, inputs: tuple[str, ...], *, padded: bool, outputs: tuple[str, ...] = OUTPUTS
) -> Tower:
    """The tower of a model, as the manifest states it.

    Args:
        source: The model.
        inputs: The names of the graph's inputs.
        padded: Whether texts of different lengths may share a batch.
        outputs: The names of the graph's outputs, the text's vector the last.
    """
    tokenizer = source.model.tokenizer
    return Tower(
        modality="text",
        inputs=inputs,
        outputs=outputs,
        embedding_output=OUTPUTS[1],
        pooling="+".join(source.pooling_modes),
        normalize=source.normalize,
        input=TextInput(
            max_length=source.max_length,
            pad_token_id=tokenizer.pad_token_id,
            truncation_side=tokenizer.truncation_side,
            prompts=dict(source.model.prompts),
            default_prompt_name=source.model.default_prompt_name,
            include_prompt=source.pooling.include_prompt,
            padded=padded,
            vocab_size=rows_of(source.transformer.auto_model),
        ),
    )


def pytorch_reference(source: TextSource) -> Reference:
    """Reference texts with the vectors that PyTorch gives them."""
    encode = partial(source.model.encode, show_progress_bar=False)
    return embed_references(
        token_counter(source.model.tokenizer),
        source.max_length,
        source.model.prompts.values(),
        lambda text, prompt: encode(text, prompt=prompt),
    )


def example_batch(source: TextSource) -> dict[str, torch.Tensor]:
    """An example batch: ids and mask, and token types where both tokenizer and model know them."""
    tokenizer = source.model.tokenizer
    device = source.model.device
    taken = inspect.signature(source.transformer.auto_model.forward).parameters
    typed = TYPE_IDS in tokenizer.model_input_names and TYPE_IDS in taken
    batch = tokenizer(
        list(EXAMPLE),
        padding=True,
        truncation=True,
        max_length=source.max_length,
        return_tensors="pt",
        return_attention_mask=True,
    )
    names = (*TOKEN_INPUTS, TYPE_IDS) if typed else TOKEN_INPUTS
    inputs = {name: batch[name].to(device) for name in names}
    if not source.pooling.include_prompt:
        inputs[PROMPT_LENGTH] = torch.zeros(1, dtype=torch.int64, device=device)
    return inputs
