"""Keeps the chatter of torch, transformers and their loggers off the user's terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

from fmrt.errors import ProviderWarning, TruncationWarning

# Loggers with handlers of their own, which write to the terminal.
LIBRARIES = ("", "transformers", "sentence_transformers", "peft", "huggingface_hub")
# Our own.
OURS = (ProviderWarning, TruncationWarning)
# What libraries warn of, and the exporter says itself, refuses itself, or does not depend on.
KNOWN = (
    "LOAD REPORT",
    "Default prompt name is set",
    "No sentence-transformers model found",
    "Converting ",
    "was created with Sentence Transformers version",
    "requires torchvision",
    "is slower than",
    "fast path is not available",
    "does not give tokens",
    "were not initialized from the model checkpoint",
    "were not used when initializing",
    "CLIPModel module is deprecated",
    "tokenizer_name_or_path",
)
# A warning is shown up to here.
SHOWN = 300
# One thread at a time: warnings, loggers and standard streams belong to the whole process.
_turn = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings, log records below ERROR and what is printed; exceptions still come through.

    Standard input is at its end: a question that nobody sees is no question.
    """
    with _turn, warnings.catch_warnings(), _mute():
        warnings.simplefilter("ignore")
        for category in OURS:  # of another thread, which embeds
            warnings.simplefilter("always", category)
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """As `quiet`, but what libraries warn of is in the list that it gives, once it is left."""
    ear = _Ear()
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    said: list[str] = []
    with _turn, warnings.catch_warnings(record=True) as warned, _mute():
        warnings.simplefilter("always", UserWarning)
        before = [logger.handlers for logger in loggers]
        for logger in loggers:
            logger.handlers = [ear]
        try:
            yield said
        finally:
            for logger, handlers in zip(loggers, before, strict=True):
                logger.handlers = handlers
            texts = [*ear.heard, *(str(w.message) for w in warned if w.category is UserWarning)]
            said += dict.fromkeys(_short(text) for text in texts if _matters(text))


def _matters(text: str) -> bool:
    return bool(text.strip()) and not any(known in text for known in KNOWN)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} ..."


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


class _Routed(io.TextIOBase):
    """Drops what one thread writes, and passes on what the others do."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._muted = threading.get_ident()

    def write(self, text: str) -> int:
        if self._stream is not None and threading.get_ident() != self._muted:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    stdin = sys.stdin
    with (
        contextlib.redirect_stdout(_Routed(sys.stdout)),
        contextlib.redirect_stderr(_Routed(sys.stderr)),
    ):
        sys.stdin = io.StringIO()
        try:
            yield
        finally:
            sys.stdin = stdin
