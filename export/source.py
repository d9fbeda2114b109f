"""A model directory or hub id -> a PyTorch embedding model, and what it says about embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

from fmrt.errors import ExportError, OptionError
from fmrt.export.causality import is_causal
from fmrt.export.checkpoint import (
    check_head,
    check_missing,
    check_size,
    check_unexpected,
    difference,
)
from fmrt.export.directory import MODULES_FILE, author_code, check_file, check_kind, read_object
from fmrt.export.encoder import load_whole, take_encoder
from fmrt.export.quiet import listening
from fmrt.export.tokenizer import (
    check_packages,
    check_rows,
    check_tokenizer,
    rows_of,
    take_tokenizer,
    why_not_loaded,
)

POOLING_MODES: tuple[str, ...] = tuple(Pooling.POOLING_MODES)
# Modules that a graph and a manifest can state. Anything else is refused by its name.
MODULES = (Transformer, Pooling, Dense, Normalize, LayerNorm, Dropout)
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
# What other runtimes need, and this exporter does not.
NOT_NEEDED = ["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.onnx", "*.mlmodel"]


@dataclass(frozen=True)
class Choice:
    """One decision of an export: what it is about, the value, and where that was read."""

    name: str
    value: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.origin})"


# Pooling where the model states none, by whether its attention is causal.
STANDARD = {
    True: ("lasttoken", "standard for causal attention: the last token alone sees all others"),
    False: ("mean", "standard for encoders: each token sees all others"),
}
ENCODER = Choice("part", "the encoder", "standard for encoder-decoders")


@dataclass(frozen=True)
class Overrides:
    """What the user asked for instead of what the model says; None leaves the model's own.

    ``trust_remote_code`` lets Python files of the model's directory run. ``tokenizers`` are
    directories of adapters: one that brings a tokenizer was trained with that.
    """

    pooling: str | None = None
    normalize: bool | None = None
    max_length: int | None = None
    output: str = "pooled"
    trust_remote_code: bool = False
    tokenizers: tuple[Path, ...] = ()


@dataclass(frozen=True)
class TextSource:
    """A text embedding model, ready to export.

    Attributes:
        name: as the user gave it.
        path: its local directory.
        revision: commit of a hub model.
        model: in float32, in evaluation mode, overrides applied; the source of reference vectors.
        max_length: most tokens of a text, special tokens included.
        choices: what was chosen and where that was read, for the user.
    """

    name: str
    path: Path
    revision: str | None
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


def load_text_source(
    name: str, path: Path, commit: str | None, device: str, overrides: Overrides
) -> TextSource:
    """Load a sentence-transformers model, or a plain text encoder with a pooling of its own.

    Args:
        name: as the user gave it.
        path: its local directory.
        commit: of a hub model.
        device: torch device.
        overrides: what the user asked for.

    Raises:
        ExportError: a model that cannot be exported, with the reason.
        OptionError: an override that makes no sense for this model.
    """
    if overrides.pooling is None:
        check_kind(path, name)
    check_size(path)
    model, notes = load_sentence_transformer(path, device, overrides.trust_remote_code)
    brought = take_tokenizer(model, overrides.tokenizers)
    _check_modules(model, name)
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
    choices = [
        _choose_pooling(model, path, overrides.pooling),
        choose_normalize(model, path, overrides.normalize),
        _choose_max_length(model, path, overrides.max_length),
        _prompts_choice(model, path),
        *part,
        *([Choice("tokenizer", str(brought), "the adapter's own")] if brought else []),
        *notes,
    ]
    return TextSource(name, path, commit, model.eval(), model.max_seq_length, tuple(choices))


def weights_sha256(path: Path) -> str:
    """SHA-256 in hex over the weight files below ``path``, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted({f for pattern in WEIGHTS for f in path.rglob(pattern)}):
        with file.open("rb") as f:
            while chunk := f.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def fetch(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Local directory of a model or adapter and, for one from the hub, its commit.

    Raises:
        ExportError: there is none.
        OptionError: a revision of a local directory.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise OptionError("revision applies to hub models, and this is a local directory")
        return path, None
    if path.exists():
        check_file(path, name)
    try:
        path = _download(name, revision)
    except (HfHubHTTPError, HFValidationError, OSError) as e:
        raise ExportError(
            f"{name} is neither a directory nor a model the hub gives: {first_line(e)}"
        ) from e
    return path, path.name


def _download(name: str, revision: str | None) -> Path:
    """A snapshot, whose directory is named by its commit; from the cache where there is no hub."""
    skip = [*NOT_NEEDED, "*.bin"]
    path = Path(snapshot_download(name, revision=revision, ignore_patterns=skip))
    if not any(path.rglob("*.safetensors")):
        snapshot_download(name, revision=path.name, ignore_patterns=NOT_NEEDED)
    return path


def check_device(device: str) -> None:
    """Raise unless torch can use ``device``.

    Raises:
        OptionError: it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise OptionError(f"device {device!r} is not usable: {first_line(e)}") from e


def load_sentence_transformer(
    path: Path, device: str, trust: bool
) -> tuple[SentenceTransformer, Sequence[Choice]]:
    """A directory as sentence-transformers reads it, in float32, with what libraries warned of.

    Raises:
        ExportError: it cannot be loaded, or needs Python code of its author without ``trust``.
    """
    check_packages(path)
    try:
        with listening() as said:
            model = SentenceTransformer(
                str(path),
                device=device,
                local_files_only=True,
                trust_remote_code=trust,
                model_kwargs={"dtype": torch.float32},
            )
    except Exception as e:  # whatever a malformed model directory provokes
        why = why_not_loaded(path) if "processing class" in str(e) else None
        raise (ExportError(why) if why else cannot_load(str(path), path, e)) from e
    for text in said:
        if "trust_remote_code" in text:  # something else was taken in the code's place
            raise cannot_load(str(path), path, RuntimeError(text))
    return model, [Choice("note", text, "a library's warning") for text in said]


def cannot_load(what: str, path: Path, error: Exception) -> ExportError:
    """Why a library did not load something of a model's directory, in one line."""
    if "ignore_mismatched_sizes" in str(error):
        return ExportError(f"{what} cannot be loaded: its weights have not the shapes it states")
    if "trust_remote_code" not in str(error):
        return ExportError(f"{what} cannot be loaded: {first_line(error)}")
    code = ", ".join(dict.fromkeys(author_code(path))) or first_line(error)
    return ExportError(
        f"{what} needs Python code of the model's author ({code}), which does not run unasked; "
        "read that code, then say --trust-remote-code (trust_remote_code=True)"
    )


def first_line(e: Exception) -> str:
    """First line of an error's text, or its type."""
    if "weights_only" in str(e):  # torch advises to run it
        return (
            "it is a pickle of more than weights, whose code does not run; save it as safetensors"
        )
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__


def _check_modules(model: SentenceTransformer, name: str | Path) -> None:
    for module in model:
        if not isinstance(module, MODULES):
            raise ExportError(
                f"{name} has a {type(module).__name__} module, which cannot be exported; "
                f"those that can: {', '.join(m.__name__ for m in MODULES)}"
            )
    if not isinstance(model[0], Transformer) or "text" not in model[0].modalities:
        raise ExportError(f"{name} does not start with a text transformer")
    if sum(isinstance(m, Pooling) for m in model) != 1:
        raise ExportError(f"{name} has no pooling module, or several; exactly one can be exported")
    check_tokenizer(model.tokenizer, str(name))
    check_rows(model.tokenizer, rows_of(model[0].auto_model), str(name))


def _choose_pooling(model: SentenceTransformer, path: Path, asked: str | None) -> Choice:
    index = next(i for i, m in enumerate(model) if isinstance(m, Pooling))
    pooling = model[index]
    origin = _module_origin(path, pooling)
    if asked is None and origin is None:
        mode, reason = STANDARD[is_causal(model[0])]
        model[index] = Pooling(pooling.embedding_dimension, mode)
        return Choice("pooling", mode, f"{reason}; the model does not say, --pooling overrides")
    if asked is not None:
        modes = tuple(asked.split("+"))
        unknown = [m for m in modes if m not in POOLING_MODES]
        if unknown:
            raise OptionError(f"pooling {unknown[0]!r}; choose from: {', '.join(POOLING_MODES)}")
        model[index] = Pooling(pooling.embedding_dimension, modes, pooling.include_prompt)
        _check_width(model, index)
        origin = "asked for"
    mode = model[index].pooling_mode
    return Choice("pooling", mode if isinstance(mode, str) else "+".join(mode), str(origin))


def _check_width(model: SentenceTransformer, index: int) -> None:
    width = model[index].pooling_output_dimension
    for module in list(model)[index + 1 :]:
        wanted = getattr(module, "in_features", width)
        if wanted != width:
            raise OptionError(
                f"pooling gives {width} dimensions, and the Dense layer behind takes {wanted}"
            )


def choose_normalize(model: SentenceTransformer, path: Path, asked: bool | None) -> Choice:
    """Whether a model ends in L2 normalization; ``asked`` changes it."""
    has = isinstance(model[-1], Normalize)
    if asked is None:
        where = path / MODULES_FILE
        origin = (
            f"{MODULES_FILE}" if where.is_file() else "the model does not say; --normalize adds it"
        )
        return Choice("normalize", _yes(has), origin)
    if asked and not has:
        model.append(Normalize())
    elif has and not asked:
        del model[len(model) - 1]
    return Choice("normalize", _yes(asked), "asked for")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _choose_max_length(model: SentenceTransformer, path: Path, asked: int | None) -> Choice:
    limit = _position_limit(model[0].auto_model)
    stated = model.max_seq_length
    if asked is not None:
        if asked < 1 or (limit is not None and asked > limit):
            raise OptionError(f"max length {asked}; this model takes 1 to {limit} tokens")
        model.max_seq_length = asked
        return Choice("max length", f"{asked}", "asked for")
    # Tokenizers without a limit of their own state a huge number.
    known = stated is not None and stated <= 1 << 30
    if known and (limit is None or stated <= limit):
        return Choice("max length", f"{stated}", _length_origin(path, stated))
    if limit is None:
        raise OptionError("the model states no maximum length; give one with --max-length")
    model.max_seq_length = limit
    return Choice("max length", f"{limit}", "all the model's position embeddings, config.json")


def _length_origin(path: Path, length: int) -> str:
    stated = (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    )
    for file, key in stated:
        for found in sorted(path.rglob(file)):
            if read_object(found).get(key) == length:
                return str(found.relative_to(path))
    return "config.json"


def _position_limit(backbone: torch.nn.Module) -> int | None:
    """Most positions the model has; RoBERTa-like tables lose the rows up to their padding row."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            used = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - used
    config: Any = backbone.config
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def _prompts_choice(model: SentenceTransformer, path: Path) -> Choice:
    named = {name: text for name, text in model.prompts.items() if text}
    default = model.default_prompt_name
    shown = ", ".join(f"{name}={text!r}" for name, text in named.items()) or "none"
    if default:
        shown += f"; default {default}"
    if not model_pooling(model).include_prompt:
        shown += "; left out of pooling"
    file = "config_sentence_transformers.json"
    return Choice("prompts", shown, file if (path / file).is_file() else "the model states none")


def model_pooling(model: SentenceTransformer) -> Pooling:
    """The pooling module of a checked model."""
    return next(m for m in model if isinstance(m, Pooling))


def _module_origin(path: Path, module: object) -> str | None:
    """Path of the configuration of the module of this type, relative to the model's directory."""
    if not (path / MODULES_FILE).is_file():
        return None
    kind = type(module).__name__
    for entry in json.loads((path / MODULES_FILE).read_text(encoding="utf-8")):
        if entry["type"].rsplit(".", 1)[-1] == kind:
            return f"{entry['path']}/config.json"
    return MODULES_FILE
