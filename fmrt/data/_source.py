"""Bytes of an input: a path, a gzip-compressed path, or ``-`` for standard input."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar, cast

from fmrt.data._text import NotTextError, as_utf8, unpacked
from fmrt.errors import DataError
from fmrt.system.file_kind import unusual_kind
from fmrt.system.limits import DEFAULT, HINT, Limits, megabytes, structure_problem
from fmrt.words import STDIN, one_line, shown

GZIP = b"\x1f\x8b"
# Most bytes that are read at a time.
_BLOCK = 1 << 16
SPLIT = f"split it, or {HINT}"
T = TypeVar("T")


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
        source: A path, or "-".
        choices: A list that takes one line for each such conversion that the file does not ask for
            itself.
        limits: A line over ``limits.line_bytes`` is passed over, and a `LongLine` stands for it.

    Raises:
        DataError: It is no text (at once), or reading fails halfway (later).
    """
    blocks = _blocks(source, [] if choices is None else choices, limits.line_bytes)
    next(blocks)
    return enumerate(chain.from_iterable(blocks), 1)


def _blocks(source: str, choices: list[str], most: int) -> Iterator[Iterable[bytes]]:
    """First, when the file is open, a block without lines."""
    with reading(source), _open(source) as stream:
        try:
            text = as_utf8(stream, choices)
        except NotTextError as e:
            raise DataError(f"{shown(source)} is {e}") from None
        yield ()
        yield from _split(text, most)


def _split(stream: IO[bytes], most: int) -> Iterator[Iterable[bytes]]:
    """Lines, some at a time: a call for each would take longer than what is done with it.

    A block is what is there, so that the lines of a pipe come as soon as they are written.
    """
    held: list[bytes] = []  # the start of a line, a block more than its limit at most
    size = 0
    while block := cast("io.BufferedReader", stream).read1(_BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            whole = b"".join((*held, block[:end]))
            held, size = [], 0
            lines = io.BytesIO(whole)
            yield lines if len(whole) <= most else [_allowed(line, most) for line in lines]
        if size <= most and end < len(block):
            held.append(block[end:])
            size += len(block) - end
    if held:
        yield [_allowed(b"".join(held), most)]


def _allowed(line: bytes, most: int) -> bytes:
    """The line, or what stands for it."""
    if len(line) <= most:
        return line
    return LongLine(f"it has over {megabytes(most)}; {SPLIT}".encode())


def line_problem(line: bytes, limits: Limits) -> str | None:
    """Why a line of JSON or CSV cannot be read; None if it can."""
    return line.decode() if isinstance(line, LongLine) else structure_problem(line, limits)


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
