"""Every error and warning that fmrt raises on purpose.

``FmrtError``
    ``BundleError``            a bundle that cannot be used
        ``BundleNotFoundError``    no such directory, or no ``fmrt.json`` in it
        ``BundleCorruptError``     a file is missing, or its content is not what was exported
        ``SchemaVersionError``     written by a newer fmrt
        ``VariantNotFoundError``   the bundle has no such variant for this provider
        ``VerificationError``      the vectors are not PyTorch's
        ``GraphError``             a graph that ONNX Runtime does not run, or not as stated
    ``ProviderError``          an execution provider that cannot be had
    ``ProcessError``           a thing of one process, in another process
    ``DeviceMemoryError``      one item alone does not fit the memory
    ``InputError``             an item that cannot be embedded
        ``TextTooLongError``       more tokens than ``max_length``, under ``on_too_long="error"``
    ``OptionError``            an argument that makes no sense for this bundle
        ``ClosedError``            an embedder that is closed, or was closed while it worked
    ``DataError``              an input file or output path that cannot be used
    ``ExportError``            a model that cannot be exported
    ``HubError``               a bundle that cannot be pushed to the hub
        ``QuantizationError``      a variant that is not good enough; others may have been added
    ``MissingExtraError``      an optional dependency that is not installed

Each also inherits the builtin that a caller would expect to catch.
"""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FLAG = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")
# Flags that are no argument of the same name in Python, and those of other programs.
_ARGUMENTS = {
    "--ignore-provenance": "check_provenance=False",
    "--max-item-size": "max_item_bytes",
    "--no-header": "header=False",
    "--no-normalize": "normalize=False",
    "--no-verify": "verify=False",
    "--overwrite": "overwrite=True",
    "--task": "tasks",
}
# How the note begins that says what flags are in Python.
IN_PYTHON = "In Python"
_NOT_OURS = frozenset({"--gpus"})


class FmrtError(Exception):
    """Base of all errors that fmrt raises on purpose; its text is one line for the user.

    Where the text names flags of the command line, a note says what they are in Python.
    """

    def __init__(self, *arguments: object) -> None:
        message = str(arguments[0]) if arguments else ""
        if not message.isprintable():  # names of files may have any characters
            message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
            arguments = (message, *arguments[1:])
        super().__init__(*arguments)
        if "--" in message:
            flags = [f for f in dict.fromkeys(_FLAG.findall(message)) if f not in _NOT_OURS]
            if flags:
                self.add_note(f"{IN_PYTHON}: {', '.join(map(_argument, flags))}")


class BundleError(FmrtError):
    """A bundle that cannot be used."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle at that path."""


class BundleCorruptError(BundleError, ValueError):
    """A file of the bundle is missing, malformed, or not what was exported."""


class SchemaVersionError(BundleError, ValueError):
    """The bundle was written by a newer fmrt."""


class VariantNotFoundError(BundleError, LookupError):
    """The bundle has no such variant for this execution provider."""


class VerificationError(BundleError, ValueError):
    """The bundle's vectors differ from PyTorch's reference vectors."""


class GraphError(BundleError, RuntimeError):
    """A graph that ONNX Runtime cannot run, or whose outputs are not what the manifest says."""


class ProviderError(FmrtError, RuntimeError):
    """An execution provider that is unknown or cannot be had here."""


class ProcessError(FmrtError, TypeError):
    """A thing that works only in the process that made it was taken to another, or pickled."""


class DeviceMemoryError(FmrtError, MemoryError):
    """A batch of one item does not fit the memory that the session may use."""


class InputError(FmrtError, ValueError):
    """An item that cannot be embedded.

    Attributes:
        index: Position of the item in the input, or None when the input as a whole is wrong.
        reason: The fault, without the position.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        self.index = index
        self.reason = reason
        super().__init__(reason if index is None else f"item {index}: {reason}")

    def at(self, index: int) -> InputError:
        """The same error of the item at a position."""
        return type(self)(self.reason, index)


class TextTooLongError(InputError):
    """A text has more tokens than the model's ``max_length`` and truncation was not allowed."""


class OptionError(FmrtError, ValueError):
    """An argument that makes no sense, or not for this bundle."""


class ClosedError(OptionError):
    """An embedder that is closed, or was closed while it worked."""

    def __init__(self) -> None:
        super().__init__("this Embedder is closed; make a new one")


class DataError(FmrtError, ValueError):
    """An input file or an output path that cannot be used."""


class ExportError(FmrtError, RuntimeError):
    """A model that cannot be exported, with the reason."""


class QuantizationError(ExportError):
    """Variants that are not good enough; the others that were asked for are in the bundle.

    Attributes:
        path: The bundle's directory.
        added: Names of the variants that passed, which the bundle has now.
        refused: Names of the others, each with the reason; the bundle has none of them, or still
            has an older one of that name.
    """

    def __init__(
        self,
        message: str,
        path: Path | None = None,
        added: Sequence[str] = (),
        refused: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.added = tuple(added)
        self.refused = dict(refused or {})
        super().__init__(message)


class HubError(FmrtError, OSError):
    """A bundle that the Hugging Face hub does not take, or that did not arrive as it was."""


class MissingExtraError(FmrtError, ImportError):
    """An optional dependency is not installed; the text holds the pip command."""

    def __init__(self, what: str, extra: str, missing: str | None = None) -> None:
        found = f" (no module {missing!r})" if missing else ""
        super().__init__(f'{what} needs an extra{found}: pip install "fmrt[{extra}]"')


class TruncationWarning(UserWarning):
    """Texts were cut to the model's ``max_length``; says how many and how long they were."""


class DataWarning(UserWarning):
    """What was decided about an input, passed over or skipped; a line each."""


class ProviderWarning(UserWarning):
    """The CPU is used though there is a GPU, or a batch did not fit its memory; says why."""


class CacheWarning(UserWarning):
    """A cache of vectors is there and is not used; says why."""


class UnverifiedWarning(UserWarning):
    """An adopted bundle's vectors were not compared with PyTorch's; says why."""


_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = _QUOTE.maxlong = 60


def _argument(flag: str) -> str:
    """What a flag of the command line is in Python."""
    return f"{flag} is {_ARGUMENTS.get(flag) or flag[2:].replace('-', '_')}"


# Characters of what another library says, which may quote what it read.
MOST_SAID = 400


def said(error: BaseException) -> str:
    """What another library's error says: on one line, of limited length, without control signs."""
    return printable(" ".join(str(error).split()) or type(error).__name__)[:MOST_SAID]


def is_failure(error: BaseException) -> bool:
    """Whether a library failed: by an exception, or by a panic in Rust.

    A panic is a BaseException that cannot be imported.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def first_cause(error: BaseException) -> str:
    """What the first of some errors says, each of which is the cause of the next, see `said`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return "a name is not UTF-8" if isinstance(error, UnicodeError) else said(error)


def printable(text: str) -> str:
    """A text without control signs and lone surrogates."""
    return "".join(c if c.isprintable() else "?" for c in text)


def quoted(value: object) -> str:
    """A value as an error message shows it: on one line, of limited length."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: _QUOTE.maxstring])  # which has the whole of it printed otherwise
    try:
        shown = _QUOTE.repr(value)
    except ValueError:  # of an integer with more digits than Python prints
        return f"a {type(value).__name__}"
    return " ".join(shown.split())
