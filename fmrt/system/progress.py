"""A progress bar with rate and time left, on a terminal only unless asked for."""

from __future__ import annotations

import sys


class Progress:
    """Counts items on standard error.

    Args:
        total: Items to come, or None when nobody knows.
        show: True or False, or None for only on a terminal, of more than one item.
        unit: The word for an item.
    """

    def __init__(self, total: int | None, show: bool | None = None, unit: str = "text") -> None:
        self._bar = None
        if show is None:
            # Without standard error (a service, pythonw) there is nowhere to show anything.
            show = total != 1 and sys.stderr is not None and sys.stderr.isatty()
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, unit_scale=True, smoothing=0.1)

    def advance(self, count: int) -> None:
        """Count ``count`` more items."""
        if self._bar is not None:
            self._bar.update(count)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
