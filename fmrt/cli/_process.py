"""The process around a command: its three standard files, and what Ctrl-C does to it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, cast

from fmrt.cli._status import INTERRUPTED

if TYPE_CHECKING:
    Interruptible = Callable[[], AbstractContextManager[None]]

_READABLE, _WRITABLE = os.O_RDONLY, os.O_WRONLY
# What stands in for a standard file that is closed: using it fails, but for standard error.
_STAND_INS = (("stdin", "r", _WRITABLE), ("stdout", "w", _READABLE), ("stderr", "w", _WRITABLE))


@contextmanager
def prepared(*, ends: bool) -> Iterator[Interruptible]:
    """Make the standard files safe to use, and Ctrl-C the end of the process.

    At Ctrl-C the process says so and ends at once, since an exception could come up in the middle
    of an import, where C code prints or swallows it. What is given is a context in which Ctrl-C
    raises KeyboardInterrupt: for work that has something to clean up.

    Args:
        ends: Whether the process ends after this; then Ctrl-C stays as it is here.
    """
    _open_closed_files()
    given, sys.stderr = sys.stderr, cast("TextIO", _Unfailing(sys.stderr))
    ours = _set_interrupt(signal.default_int_handler, _end)
    try:
        yield _raising if ours else _unchanged
    finally:
        sys.stderr = given
        if ours and not ends:
            _set_interrupt(_end, signal.default_int_handler)


@contextmanager
def _raising() -> Iterator[None]:
    _set_interrupt(_end, signal.default_int_handler)
    try:
        yield
    finally:
        _set_interrupt(signal.default_int_handler, _end)


@contextmanager
def _unchanged() -> Iterator[None]:
    """Ctrl-C is ignored, or another one's."""
    yield


def _set_interrupt(before: Any, now: Any) -> bool:  # noqa: ANN401
    """Change what Ctrl-C does, if it does what it did ``before`` and may be changed."""
    if signal.getsignal(signal.SIGINT) is not before:
        return False
    try:
        signal.signal(signal.SIGINT, now)
    except ValueError:  # not the main thread
        return False
    return True


def _end(_: int, __: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"fmrt: interrupted\n")
    os._exit(INTERRUPTED)


def _open_closed_files() -> None:
    """Fill the numbers 0 to 2 where they are closed.

    Otherwise the next file that is opened has such a number, and gets what libraries print.
    """
    for number, (name, mode, flags) in enumerate(_STAND_INS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


class _Unfailing:
    """Standard error that drops what cannot be shown there: the exit status tells it too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # file names of any bytes, on a stream that replaces nothing
            self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # full, gone, or closed
            discard(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            discard(self._stream)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Let what is still buffered go nowhere if it cannot go where it should.

    Otherwise the interpreter would try again at exit, and print a traceback.
    """
    with suppress(ValueError):  # closed
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
