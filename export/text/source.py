"""A loaded text embedding model, and what its directory says about embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from fmrt.export.choices import Choice, Overrides
from fmrt.export.loading.checkpoint import (
    check_head,
    check_missing,
    check_size,
    check_unexpected,
    difference,
)
from fmrt.export.loading.directory import MODULES_FILE, check_kind
from fmrt.export.loading.fetching import Origin
from fmrt.export.loading.tokenizer import take_dropout, take_tokenizer
from fmrt.export.text.encoder import load_whole, take_encoder
from fmrt.export.text.modules import check_modules, load_sentence_transformer
from fmrt.export.text.settings import (
    choose_max_length,
    choose_normalize,
    choose_pooling,
    prompts_choice,
)

ENCODER = Choice("part", "the encoder", "standard for encoder-decoders")


@dataclass(frozen=True)
class TextSource:
    """A text embedding model, ready to export.

    Attributes:
        origin: The origin of the model.
        model: The model in float32, in evaluation mode, overrides applied; the source of reference
            vectors.
        max_length: The largest number of tokens of a text, special tokens included.
        choices: What was chosen and where that was read, for the user.
    """

    origin: Origin
    model: SentenceTransformer
    max_length: int
    choices: tuple[Choice, ...]

    @property
    def transformer(self) -> Transformer:
        """The backbone with its tokenizer."""
        return self.model[0]

    @property
    def pooling(self) -> Pooling:
        """The pooling module."""
        return next(m for m in self.model if isinstance(m, Pooling))

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        """Pooling modes in the order of their vectors."""
        mode = self.pooling.pooling_mode
        return (mode,) if isinstance(mode, str) else tuple(mode)

    @property
    def normalize(self) -> bool:
        """Whether the model's last step is L2 normalization."""
        return isinstance(self.model[-1], Normalize)


def load_text_source(origin: Origin, device: str, overrides: Overrides) -> TextSource:
    """Load a sentence-transformers model, or a plain text encoder with a pooling of its own.

    Args:
        origin: The origin of the model.
        device: The torch device.
        overrides: What the user asked for.

    Raises:
        ExportError: The model cannot be exported; the message has the reason.
        OptionError: An override that makes no sense for this model.
    """
    name, path = origin.name, origin.path
    if overrides.pooling is None:
        check_kind(path, name)
    check_size(path)
    model, notes = load_sentence_transformer(path, device, overrides.trust_remote_code)
    brought = take_tokenizer(model, overrides.tokenizers)
    check_modules(model, name)
    found = difference(model[0].auto_model)
    plain = not (path / MODULES_FILE).is_file()
    if plain and overrides.pooling is None:
        check_head(model[0].config, found.unexpected, name)
    if plain and found.missing and model[0].config.is_encoder_decoder:
        load_whole(model[0], path, device, overrides.trust_remote_code)
        found = difference(model[0].auto_model)
    check_unexpected(found.unexpected, model[0].auto_model, name)
    part = (ENCODER,) if plain and take_encoder(model[0]) else ()
    check_missing(found.missing, model[0].auto_model, name)
    tokenizer = model.tokenizer
    if tokenizer.pad_token is None:
        # Any token will do: attention and pooling leave padding out.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    dropout = take_dropout(tokenizer)
    choices = (
        choose_pooling(model, path, overrides.pooling),
        choose_normalize(model, path, overrides.normalize),
        choose_max_length(model, path, overrides.max_length),
        prompts_choice(model, path),
        *part,
        *([Choice("tokenizer", str(brought), "the adapter's own")] if brought else []),
        *([Choice("tokenizer's dropout", "off", f"{dropout:g} in training")] if dropout else []),
        *notes,
    )
    return TextSource(origin, model.eval(), model.max_seq_length, choices)
