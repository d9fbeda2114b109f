"""Text for a terminal: on one line, of limited width, without control characters; and tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_KEPT = 100
_LONG = re.compile(rf"\S{{{5 * _KEPT},}}")


def flat(text: str) -> str:
    """Return ``text`` with its lines joined into one, and what no name is as long as cut."""
    line = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return _LONG.sub(lambda found: f"{found[0][:_KEPT]}...{found[0][-_KEPT:]}", line)


def shortened(text: str, width: int) -> str:
    """Return ``text`` on one line of at most ``width`` characters, ``...`` where it was cut.

    Characters that a terminal would obey instead of showing are left out.
    """
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    return line if len(line) <= width else line[: max(0, width - 3)] + "..."


def size(number: int) -> str:
    """Return bytes as e.g. ``90.4 MB``, or in kB when that is less than 0.1 MB."""
    return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"  # noqa: PLR2004


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()
) -> str:
    """Return lines with aligned columns, to the right those whose header is in ``numbers``."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    signs = [">" if name in numbers else "<" for name in header]
    return "\n".join(
        "  ".join(
            f"{cell:{sign}{width}}" for cell, sign, width in zip(line, signs, widths, strict=True)
        ).rstrip()
        for line in lines
    )
