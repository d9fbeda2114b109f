"""What a model's directory says that it is, before a library reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fmrt.bundle.manifest import MANIFEST_FILE
from fmrt.errors import ExportError, quoted

CONFIG_FILE = "config.json"
MODULES_FILE = "modules.json"
ADAPTER_CONFIG = "adapter_config.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
# What makes one directory per model or an adapter.
MODEL_FILES = (CONFIG_FILE, MODULES_FILE, ADAPTER_CONFIG)
# A configuration is a few kilobytes; some tokenizers' are megabytes.
MAX_JSON_BYTES = 64 << 20
LFS = b"version https://git-lfs.github.com/spec/"
# A pointer of git-lfs has three short lines.
LFS_BYTES = 1024
# Files that a model is read from, by the start or the end of their names.
READ = (".json", ".txt", ".model", ".tiktoken", ".jinja")
WEIGHTS = ("model", "pytorch_model", "adapter_model")
WEIGHT_ENDS = (".safetensors", ".bin")
# What other kinds of sentence-transformers models give instead of a text's vector.
OTHER_KINDS: Mapping[str, str] = {
    "SparseEncoder": "a SparseEncoder such as SPLADE: it gives a weight a word of a vocabulary",
    "CrossEncoder": "a CrossEncoder, a reranker: it scores a pair of texts",
    "MultiVectorEncoder": "a MultiVectorEncoder such as ColBERT, which gives a vector a token",
}
BENEATH = "for dense vectors of the model beneath it, say --pooling, e.g. --pooling mean"
# Where a user of a file of weights finds the model.
FORMATS: Mapping[str, str] = {
    ".gguf": "GGUF, llama.cpp's format",
    ".onnx": "an ONNX graph already",
    ".safetensors": "weights alone",
    ".bin": "weights alone",
    ".pt": "weights alone",
    ".pth": "weights alone",
    ".h5": "weights of TensorFlow",
}
# Where transformers looks for classes of the author's own.
AUTO_FILES = (
    CONFIG_FILE,
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
# Names of models in a message.
SHOWN = 5


@dataclass(frozen=True)
class Module:
    """An entry of ``modules.json``: the class's name, its package, and its folder."""

    kind: str
    package: str
    path: str


def read_json(path: Path) -> object:
    """The content of a JSON file of a model.

    Raises:
        ExportError: It is no regular file, huge, or not JSON.
    """
    check_regular(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ExportError(f"{path} has {path.stat().st_size:,} bytes: no configuration has so many")
    try:
        content: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise ExportError(f"{path} is not JSON: {str(e) or 'it is nested too deep'}") from e
    return content


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ExportError: It holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ExportError(f"{path} holds no JSON object")
    return content


def check_regular(path: Path) -> None:
    """Raise unless a path is a file: reading a pipe or a device might never end.

    Raises:
        ExportError: It is something else, or a link to nothing.
    """
    if not path.is_file():
        raise ExportError(f"{path} is not a regular file, or a link to nothing; put the file there")


def check_file(path: Path, name: str) -> None:
    """Say what a file is that was given instead of a directory.

    Raises:
        ExportError: The error is raised always.
    """
    known = FORMATS.get(path.suffix.lower())
    if path.suffix == ".onnx":
        raise ExportError(
            f"{name} is {known}; fmrt exports from PyTorch: give the directory or hub id of the "
            "model that it was made from"
        )
    what = f"a file ({known})" if known else "a file"
    raise ExportError(
        f"{name} is {what}; give a model's directory or hub id; for a torch checkpoint of a ResNet "
        "see python -m fmrt.export.resnet --help"
    )


def check_directory(path: Path, name: str) -> None:
    """Raise unless a directory looks like a model or an adapter whose files are there.

    Raises:
        ExportError: It is something else, with what it is and what to do.
    """
    if (path / MANIFEST_FILE).exists():
        raise ExportError(
            f"{name} is a bundle already: fmrt embed {name} embeds with it, and fmrt info {name} "
            "names the model that it was exported from"
        )
    if not any((path / file).exists() or (path / file).is_symlink() for file in MODEL_FILES):
        raise ExportError(f"{name} {_what_is_there(path)}")
    for file in (CONFIG_FILE, ADAPTER_CONFIG):
        if (path / file).exists():
            read_object(path / file)
    _check_prompts(path / SENTENCE_TRANSFORMERS)
    modules = stated_modules(path, name)
    for folder in dict.fromkeys([path, *(path / module.path for module in modules)]):
        if folder.is_dir():
            _check_files(folder, name)


def _check_prompts(file: Path) -> None:
    """Raise unless the prompts of sentence-transformers, and the default's name, are texts."""
    stated = read_object(file) if file.exists() else {}
    prompts, default = stated.get("prompts") or {}, stated.get("default_prompt_name")
    if not isinstance(prompts, dict):
        raise ExportError(f"{file}: prompts={quoted(prompts)}; it must be an object of texts")
    for name, prompt in prompts.items():
        if not isinstance(prompt, str | None):
            raise ExportError(f"{file}: the prompt {quoted(name)} is {quoted(prompt)}, not a text")
    if not isinstance(default, str | None):
        raise ExportError(f"{file}: default_prompt_name={quoted(default)}; it must be a text")


def _what_is_there(path: Path) -> str:
    """The rest of a sentence about a directory without a model."""
    entries = sorted(path.iterdir())
    if not entries:
        return f"is empty: it holds no {CONFIG_FILE}, so it is no model"
    models = [e.name for e in entries if any((e / file).is_file() for file in MODEL_FILES)]
    if not models and (path / "snapshots").is_dir():
        models = [f"snapshots/{e.name}" for e in sorted((path / "snapshots").iterdir())]
    if models:
        more = ", ..." if len(models) > SHOWN else ""
        return f"is a directory of models; give one of them: {', '.join(models[:SHOWN])}{more}"
    found = {e.suffix.lower() for e in entries}
    suffix = next((suffix for suffix in FORMATS if suffix in found), None)
    neither = f"holds neither {CONFIG_FILE} nor {MODULES_FILE}: not a model"
    if suffix is None:
        return neither
    return (
        f"{neither}, but {FORMATS[suffix]} (*{suffix}); give the directory or hub id of the model "
        "that it was made from, or copy its configuration and tokenizer here"
    )


def _check_files(folder: Path, name: str) -> None:
    entries = list(folder.iterdir())
    for entry in entries:
        if not entry.is_dir() and _is_read(entry.name):
            check_regular(entry)
    pointers = [e for e in entries if e.is_file() and _is_pointer(e)]
    # Weights in one form are enough.
    whole = any(_is_weights(e.name) and e not in pointers for e in entries)
    missing = [e.name for e in pointers if not (whole and _is_weights(e.name))]
    if missing:
        raise ExportError(
            f"{name}: {missing[0]} is a pointer of git-lfs, not the file itself: run git lfs pull "
            f"in {folder}"
        )


def _is_weights(file: str) -> bool:
    return file.startswith(WEIGHTS) and file.endswith(WEIGHT_ENDS)


def _is_read(file: str) -> bool:
    return _is_weights(file) or file.endswith(READ)


def _is_pointer(path: Path) -> bool:
    if not _is_read(path.name) or path.stat().st_size > LFS_BYTES:
        return False
    return path.read_bytes().startswith(LFS)


def stated_modules(path: Path, name: str) -> Sequence[Module]:
    """The entries of a directory's ``modules.json``; none where there is no such file.

    Raises:
        ExportError: The file is malformed, or names a folder outside the directory.
    """
    if not (path / MODULES_FILE).exists():
        return ()
    entries = read_json(path / MODULES_FILE)
    if not isinstance(entries, list) or not entries:
        raise ExportError(f"{name}: {MODULES_FILE} holds no list of modules")
    return [_module(entry, name) for entry in entries]


def _module(entry: object, name: str) -> Module:
    texts = [entry.get(key) for key in ("type", "path")] if isinstance(entry, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ExportError(f"{name}: {MODULES_FILE} holds {str(entry)[:100]!r}, which is no module")
    kind, folder = map(str, texts)
    windows = PureWindowsPath(folder)
    if windows.anchor or PurePosixPath(folder).is_absolute() or ".." in windows.parts:
        raise ExportError(f"{name}: {MODULES_FILE} names {folder!r}, outside the directory")
    package, _, last = kind.rpartition(".")
    return Module(last, package, folder)


def check_kind(path: Path, name: str) -> None:
    """Raise when sentence-transformers made a directory that gives something else than vectors.

    Raises:
        ExportError: The directory gives something else.
    """
    file = path / SENTENCE_TRANSFORMERS
    kind = read_object(file).get("model_type") if file.exists() else None
    for module in stated_modules(path, name):
        if module.kind in ("SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"):
            kind = "SparseEncoder"
    if kind in OTHER_KINDS:
        what = OTHER_KINDS[str(kind)]
        raise ExportError(f"{name} is {what}, which fmrt does not export; {BENEATH}")


def author_code(path: Path) -> Iterator[str]:
    """Names of Python classes that a directory's own files ask for, as ``file: class``."""
    for file in AUTO_FILES:
        content = read_json(path / file) if (path / file).exists() else {}
        stated = content.get("auto_map") if isinstance(content, dict) else None
        for value in stated.values() if isinstance(stated, dict) else ():
            yield f"{file}: {value[0] if value and isinstance(value, list) else value}"
    for module in stated_modules(path, path.name):
        if module.package.partition(".")[0] != "sentence_transformers":
            yield f"{MODULES_FILE}: {module.package}.{module.kind}"
