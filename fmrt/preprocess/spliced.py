"""A file that is read as if it were another: some of its bytes left out, and others put in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

Piece = bytes | tuple[int, int]


class Spliced(io.RawIOBase):
    """Pieces of a file, one after the other, as a file of its own.

    Args:
        file: The file, which is seekable; nobody else may read it meanwhile.
        pieces: The pieces, each as bytes, or as ``(start, end)`` of the file.
    """

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = list(pieces)
        sizes = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._ends = list(accumulate(sizes))
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, unless the file ends before; return the number of bytes."""
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target) and self._place < self._ends[-1]:
            data = self._next(len(target) - done)
            if not data:
                break
            target[done : done + len(data)] = data
            done += len(data)
            self._place += len(data)
        return done

    def _next(self, most: int) -> bytes:
        """What is left of the piece at this place."""
        index = next(i for i, end in enumerate(self._ends) if self._place < end)
        piece = self._pieces[index]
        left = self._ends[index] - self._place
        if isinstance(piece, bytes):
            return piece[len(piece) - left :][:most]
        self._file.seek(piece[1] - left)
        return self._file.read(min(left, most))
