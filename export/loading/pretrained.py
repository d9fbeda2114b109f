"""What a class of a library loads of a model's directory, or in one line why it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fmrt.errors import ExportError, printable
from fmrt.export.loading.directory import author_code
from fmrt.export.quiet import quiet

T = TypeVar("T")


def load_pretrained(
    load: Callable[..., T], path: Path, what: str, *, trust: bool = False, **options: object
) -> T:
    """Load something of a directory, without a word and without the network.

    Args:
        load: The method ``from_pretrained`` of a class.
        path: The directory.
        what: What is loaded, for messages.
        trust: Whether Python files of the directory may run.
        options: The options of the class.

    Raises:
        ExportError: It cannot be loaded.
    """
    try:
        with quiet():
            return load(str(path), local_files_only=True, trust_remote_code=trust, **options)
    except Exception as e:  # whatever a malformed directory provokes
        raise cannot_load(what, path, e) from e


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
    return printable(lines[0]) if lines else type(e).__name__
