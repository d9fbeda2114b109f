"""Bytes of an input: a path, a gzip-compressed path, or ``-`` for standard input."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar, cast

from fmrt.data._text import NotTextError, as_utf8, unpacked
from fmrt.errors import DataError
from fmrt.file_kind import unusual_kind
from fmrt.limits import DEFAULT, HINT, Limits, megabytes

STDIN = "-"
GZIP = b"\x1f\x8b"
_MOST_LISTED = 20
# Bytes that are read at a time of a line that is too long.
_PASSED_OVER = 1 << 20
SPLIT = f"split it, or {HINT}"
T = TypeVar("T")


def shown(source: str) -> str:
    """Return how messages name ``source``: quoted, so that the message stays on one line."""
    return "standard input" if source == STDIN else repr(source)


def one_line(error: BaseException) -> str:
    """Return the text of ``error`` on one line that can be printed, without errno or path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def listed(names: Iterable[str]) -> str:
    """Return the quoted names, the first twenty of them."""
    quoted = [repr(name) for name in names]
    more = len(quoted) - _MOST_LISTED
    return ", ".join(quoted[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn an error of reading ``source`` into a ``DataError``."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"cannot read {shown(source)}: {one_line(e)}") from e


def check_source(source: str) -> None:
    """Raise ``DataError`` unless ``source`` is standard input or a regular file."""
    if source == STDIN:
        return
    try:
        with reading(source):
            kind = unusual_kind(source)
    except DataError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            raise DataError(f"no such file: {shown(source)}") from e.__cause__
        raise
    if kind is not None:
        more = "" if kind == "a directory" else ", or - for standard input"
        raise DataError(f"{shown(source)} is {kind}; give a file{more}")


class LongLine(bytes):
    """Stands for a line that was too long to be read: it holds the reason."""


def numbered_lines(
    source: str, choices: list[str] | None = None, limits: Limits = DEFAULT
) -> Iterator[tuple[int, bytes]]:
    r"""Return ``(number, line)`` from 1 in UTF-8, split on ``\n`` only and with it, without a BOM.

    Files in UTF-16 or UTF-32, and files whose lines end with ``\r`` alone, are converted first.

    Args:
        source: a path, or "-".
        choices: takes a line for each such conversion that the file does not ask for itself.
        limits: a line over ``limits.line_bytes`` is passed over, and a `LongLine` stands for it.

    Raises:
        DataError: at once, if it is no text; later, if reading fails halfway.
    """
    lines = _lines(source, [] if choices is None else choices, limits.line_bytes)
    next(lines)
    return lines


def _lines(source: str, choices: list[str], most: int) -> Iterator[tuple[int, bytes]]:
    """First, when the file is open, a line that is none."""
    with reading(source), _open(source) as stream:
        try:
            text = as_utf8(stream, choices)
        except NotTextError as e:
            raise DataError(f"{shown(source)} is {e}") from None
        yield 0, b""
        for number, line in enumerate(iter(partial(text.readline, most + 1), b""), 1):
            if len(line) <= most:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = text.readline(_PASSED_OVER)  # noqa: PLW2901  # what has been looked at
            yield number, LongLine(f"it has over {megabytes(most)}; {SPLIT}".encode())


def peeked(source: str, items: Iterator[T]) -> Iterator[T]:
    """Return ``items`` unchanged after taking the first; ``DataError`` if there is none."""
    for first in items:
        return chain([first], items)
    raise empty(source)


def empty(source: str) -> DataError:
    """Return the error for an input without a single record."""
    return DataError(f"{shown(source)} is empty: it has no record to embed")


@contextmanager
def _open(source: str) -> Iterator[IO[bytes]]:
    """The bytes of a source, decompressed if its name or its start says gzip."""
    if source == STDIN:
        if (stdin := getattr(sys.stdin, "buffer", None)) is None:
            raise DataError("standard input is closed; give a file")
        packed = hasattr(stdin, "peek") and stdin.peek(2)[:2] == GZIP
        yield unpacked(stdin) if packed else stdin
        return
    with Path(source).open("rb") as file:
        if os.fspath(source).lower().endswith(".gz") or file.peek(2)[:2] == GZIP:
            with gzip.GzipFile(fileobj=file, mode="rb") as content:
                yield cast("IO[bytes]", content)
        else:
            yield file
