"""Words of messages: names that are quoted, counts, and what errors of a system say."""

from __future__ import annotations

from collections.abc import Iterable

STDIN = "-"
_MOST_LISTED = 20


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


def count(number: int, what: str) -> str:
    """Return e.g. ``1 text`` or ``8,169 texts``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
