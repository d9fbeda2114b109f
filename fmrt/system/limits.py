"""How much memory one item of the input may take: in one place, for every reader of files.

What a file states about itself is not believed: a size is compared with these limits before memory
is taken, and again while the file is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fmrt.errors import InputError, OptionError

# A file may always become so many times its own size: a photograph as JPEG is a tenth to a
# twentieth of its pixels, a bomb a thousandth.
EXPANSION = 32
# A line of text may take the item's limit divided by this: it is held as bytes, as a string, and
# in several windows.
LINE_SHARE = 16
# Lines below this are not looked at: whatever is in them, they take some 30 times as much.
SMALL_LINE = 1 << 20
# Most bytes of a character as text, besides its bytes in the line; and of a value in Python, by the
# mark that stands next to it or around it.
TEXT_BYTES = 5
VALUE_BYTES = {b",": 64, b"\t": 64, b"[": 64, b"{": 232}
HINT = "raise max_item_bytes (--max-item-size) if it is to be trusted"


@dataclass(frozen=True)
class Limits:
    """What one item may take.

    Attributes:
        item_bytes: Memory for one item while it is decoded, and for all that are decoded at the
            same time.

    Raises:
        OptionError: It is less than 1.
    """

    item_bytes: int = 200_000_000

    def __post_init__(self) -> None:
        if self.item_bytes < 1:
            raise OptionError(f"max_item_bytes={self.item_bytes}; give a number of bytes")

    @property
    def line_bytes(self) -> int:
        """Most bytes of a line of text, or of a record of a table."""
        return max(1, self.item_bytes // LINE_SHARE)

    def allowed(self, stored: int) -> int:
        """Most bytes that ``stored`` bytes of a file may become."""
        return max(self.item_bytes, EXPANSION * stored)

    def check(self, what: str, needed: int, stored: int = 0) -> None:
        """Refuse what would take too much memory.

        Args:
            what: E.g. "13,000 x 13,000 pixels".
            needed: Bytes that it would take.
            stored: Bytes that it takes in its file.

        Raises:
            InputError: It is more than what is allowed.
        """
        if needed > self.allowed(stored):
            raise InputError(
                f"{what} would take {megabytes(needed)} of memory, and the limit is "
                f"{megabytes(self.allowed(stored))}; {HINT}"
            )


DEFAULT = Limits()


class Budget:
    """Memory that several threads share, who wait for each other where it is short.

    Args:
        limits: The limits whose ``item_bytes`` are shared.
    """

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.limits = limits
        self._free = threading.Condition()
        self._taken = 0

    @contextmanager
    def taking(self, needed: int) -> Iterator[None]:
        """Hold ``needed`` bytes; what is more than all there is waits until nobody holds any."""
        with self._free:
            self._free.wait_for(lambda: not self._taken or self._fits(needed))
            self._taken += needed
        try:
            yield
        finally:
            with self._free:
                self._taken -= needed
                self._free.notify_all()

    def _fits(self, needed: int) -> bool:
        return self._taken + needed <= self.limits.item_bytes


def megabytes(size: int) -> str:
    """E.g. ``1,234 MB``, rounded up."""
    return f"{-(-size // 1_000_000):,} MB"


def structure_problem(line: bytes, limits: Limits) -> str | None:
    """Why a line of JSON or CSV would take too much memory as values; None if it would not."""
    if len(line) < SMALL_LINE:
        return None
    needed = TEXT_BYTES * len(line) + sum(
        size * line.count(mark) for mark, size in VALUE_BYTES.items()
    )
    if needed <= limits.item_bytes:
        return None
    return (
        f"its values would take {megabytes(needed)} of memory, and the limit is "
        f"{megabytes(limits.item_bytes)}; {HINT}"
    )
