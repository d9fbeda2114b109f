"""Static embeddings of texts, such as model2vec's: a look-up in a table, and a mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Normalize,
    StaticEmbedding,
)
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from fmrt.bundle.manifest import TextInput, Tower, Variant
from fmrt.errors import ExportError, OptionError
from fmrt.export.choices import Choice, Overrides
from fmrt.export.loading.directory import CONFIG_FILE, read_object
from fmrt.export.loading.fetching import Origin
from fmrt.export.loading.tokenizer import check_rows
from fmrt.export.part import Loaded, TowerPart
from fmrt.export.text.modules import load_sentence_transformer
from fmrt.export.text.padding import EXAMPLE
from fmrt.export.text.reference import embed_references
from fmrt.export.text.settings import choose_normalize
from fmrt.export.writing.configuration import save_tokenizer
from fmrt.export.writing.external import KEY, external_files
from fmrt.preprocess import TOKENIZER_FILE

OUTPUTS = ("last_hidden_state", "sentence_embedding")
# Modules that may come after the table.
AFTER = (Dense, Normalize, LayerNorm, Dropout)
# The model has no limit, and a text's token vectors are to fit the memory.
MAX_LENGTH = 65_536
MODEL_TYPE = "static_embedding"


class StaticText(torch.nn.Module):
    """Tokens to ``last_hidden_state``, their rows of the table, and ``sentence_embedding``."""

    def __init__(self, table: Tensor, after: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.words = torch.nn.Embedding.from_pretrained(table.float())
        self.after = torch.nn.ModuleList(after)
        self.config = PretrainedConfig()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Embed a batch; both inputs are int64 ``[batch, sequence]``."""
        rows = self.words(input_ids)
        mask = attention_mask.to(rows.dtype)
        # A product of matrices reads the rows once; masked and then summed, they would be written.
        total = torch.bmm(mask.unsqueeze(1), rows).squeeze(1)
        features = {OUTPUTS[1]: total / mask.sum(1, keepdim=True).clamp(min=1)}
        for module in self.after:
            features = module(features)
        return {OUTPUTS[0]: rows, OUTPUTS[1]: features[OUTPUTS[1]]}


@dataclass(frozen=True)
class StaticSource:
    """A loaded model, its tokenizer as the bundle has it, and how texts become its inputs."""

    model: SentenceTransformer
    tokenizer: Tokenizer
    module: StaticText
    spec: TextInput


def load_static(origin: Origin, device: str, overrides: Overrides) -> Loaded:
    """Load a sentence-transformers model that starts with a StaticEmbedding.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    if overrides.pooling not in (None, "mean"):
        raise OptionError(f"pooling {overrides.pooling!r}; a static embedding is the mean")
    name, path = origin.name, origin.path
    model, notes = load_sentence_transformer(path, device, overrides.trust_remote_code)
    first, *after = model
    unknown = [type(module).__name__ for module in after if not isinstance(module, AFTER)]
    if not isinstance(first, StaticEmbedding) or unknown:
        what = unknown[0] if unknown else type(first).__name__
        raise ExportError(f"{name} has a {what} module, which cannot be exported here")
    rows = int(first.embedding.num_embeddings)
    check_rows(first.tokenizer, rows, name)
    length = _max_length(first.tokenizer, overrides.max_length)
    normalize = choose_normalize(model, path, overrides.normalize)
    model.float().eval()
    spec = TextInput(
        max_length=int(length.value),
        pad_token_id=0,
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        vocab_size=rows,
    )
    module = StaticText(first.embedding.weight.detach(), list(model)[1:]).eval()
    source = StaticSource(model, _without_specials(first.tokenizer), module, spec)
    return Loaded(
        origin=origin,
        backbone=module,
        model_type=MODEL_TYPE,
        choices=(Choice("pooling", "mean", "of the table's rows"), normalize, length, *notes),
        parts=partial(_parts, source),
        write_configuration=partial(_write_configuration, source, path),
        files=(TOKENIZER_FILE,),
    )


def _max_length(tokenizer: Tokenizer, asked: int | None) -> Choice:
    if asked is not None:
        return Choice("max length", f"{asked}", "asked for")
    stated = tokenizer.truncation
    if stated is not None:
        return Choice("max length", f"{stated['max_length']}", TOKENIZER_FILE)
    return Choice("max length", f"{MAX_LENGTH}", "the model has no limit; --max-length overrides")


def _without_specials(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the special tokens that it would add: the model leaves them out."""
    spec = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps({**spec, "post_processor": None, "truncation": None}))


def _parts(source: StaticSource) -> Sequence[TowerPart]:

    def count(text: str) -> int:
        return len(source.tokenizer.encode(text).ids)

    limit = source.spec.max_length
    source.model[0].tokenizer.enable_truncation(limit)
    reference = embed_references(
        count,
        limit,
        source.spec.prompts.values(),
        lambda text, prompt: source.model.encode(text, prompt=prompt),
    )
    ids = [source.tokenizer.encode(text).ids for text in EXAMPLE]
    longest = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in ids]),
    }
    tower = Tower(
        modality="text",
        inputs=tuple(inputs),
        outputs=OUTPUTS,
        embedding_output=OUTPUTS[1],
        pooling="mean",
        normalize=any(isinstance(module, Normalize) for module in source.module.after),
        input=source.spec,
    )
    device = source.module.words.weight.device
    batch = {name: values.to(device) for name, values in inputs.items()}
    return [
        TowerPart(
            tower=tower,
            stem="model",
            module=source.module,
            inputs=batch,
            axes=dict.fromkeys(inputs, (0, 1)),
            reference=reference,
        )
    ]


def _write_configuration(
    source: StaticSource, path: Path, directory: Path, variants: Sequence[Variant]
) -> None:
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=source.tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    save_tokenizer(tokenizer, source.spec.max_length, directory)
    table = source.module.words
    stated = read_object(path / CONFIG_FILE) if (path / CONFIG_FILE).exists() else {}
    config = {
        "model_type": MODEL_TYPE,
        **stated,
        "hidden_size": table.embedding_dim,
        "vocab_size": table.num_embeddings,
        "num_hidden_layers": 0,
        "max_position_embeddings": source.spec.max_length,
    }
    external = external_files(variants)
    if external:
        config["transformers.js_config"] = {KEY: external}
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
