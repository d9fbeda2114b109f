"""Bytes of an input: a path, a gzip-compressed path, or ``-`` for standard input."""

from __future__ import annotations

import codecs
import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar, cast

from fmrt.errors import DataError
from fmrt.file_kind import unusual_kind

STDIN = "-"
_UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MOST_LISTED = 20
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


def numbered_lines(source: str) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(number, line)`` from 1, split on ``\n`` only and with it, without a UTF-8 BOM."""
    with reading(source), _open(source) as stream:
        first = _without_bom(source, next(iter(stream), b""))
        if first:
            yield 1, first
        yield from enumerate(stream, 2)


def peeked(source: str, items: Iterator[T]) -> Iterator[T]:
    """Return ``items`` unchanged after taking the first; ``DataError`` if there is none."""
    for first in items:
        return chain([first], items)
    raise empty(source)


def empty(source: str) -> DataError:
    """Return the error for an input without a single record."""
    return DataError(f"{shown(source)} is empty: it has no record to embed")


def _open(source: str) -> AbstractContextManager[IO[bytes]]:
    if source == STDIN:
        if (stdin := getattr(sys.stdin, "buffer", None)) is None:
            raise DataError("standard input is closed; give a file")
        return nullcontext(stdin)
    if os.fspath(source).lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(source, "rb"))
    return Path(source).open("rb")


def _without_bom(source: str, line: bytes) -> bytes:
    # Without the NUL it may just be one bad line; with it every line of the file would be.
    if line.startswith(_UTF16_BOMS) and b"\0" in line:
        raise DataError(f"{shown(source)} is UTF-16; save it as UTF-8")
    return line.removeprefix(codecs.BOM_UTF8)
