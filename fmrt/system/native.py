"""Calls into native libraries, which neither the interpreter's end nor a fork may interrupt.

A thread that comes back from ONNX Runtime or a tokenizer while the interpreter ends is killed
inside of it, and takes the process along (SIGABRT). A fork takes no other thread along: a lock that
one of them holds is never released in the child, and what has threads of its own waits for them
forever, even to be freed.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import thread as thread_pools
from typing import ParamSpec, TypeVar

from fmrt.errors import ProcessError

P = ParamSpec("P")
R = TypeVar("R")

POLL_SECONDS = 0.001
# Of mallopt(3): blocks of this size and more are mapped, and go back to the system when freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE_BLOCK = -1, -3, 1 << 18


class _State:
    """What is in progress in this process.

    Attributes:
        running: Calls in progress; a list, as its operations are atomic.
        may_run: Cleared while the process is forked, or ends.
        last: The only thread that may still call, at the end of the process.
        forking: Held during a fork.
        adapting: Held while an object is made fit for a forked process.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start with nothing in progress; threads that wait go on waiting."""
        self.running: list[object] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.last: threading.Thread | None = None
        self.forking = threading.Lock()
        self.adapting = threading.Lock()


_state = _State()
_bound: weakref.WeakSet[object] = weakref.WeakSet()


def call(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """What a function of native code returns; a fork, or the process's end, waits for its end."""
    entry = object()
    calls, may_run = _state.running, _state.may_run
    try:  # from the first, as an interrupt may come anywhere
        calls.append(entry)
        # Looked at after the entry, as a fork looks in the other order.
        while not may_run.is_set() and threading.current_thread() is not _state.last:
            calls.remove(entry)
            may_run.wait()
            calls.append(entry)
        return function(*arguments, **named)
    finally:
        if entry in calls:
            calls.remove(entry)


def ending() -> bool:
    """Whether the interpreter has begun to end, and thread pools take no more calls."""
    return getattr(thread_pools, "_shutdown", False) or not threading.main_thread().is_alive()


def bind(what: object) -> None:
    """Never free ``what`` in a forked process: its threads, locks or device are the parent's."""
    _bound.add(what)


def adapting() -> threading.Lock:
    """Held while an object is made fit for the forked process that it is used in."""
    return _state.adapting


def refuse_forked_device(provider: str) -> None:
    """Raise for what was loaded on another provider than the CPU in the parent of this process.

    Raises:
        ProcessError: It was.
    """
    if provider != "cpu":
        raise ProcessError(
            f"this model was loaded on {provider} before fork(), and a forked process cannot use "
            "its parent's device: load it in the child, or start processes by spawn"
        )


def _pause() -> None:
    """Let no call begin, and wait for the end of those in progress."""
    _state.may_run.clear()
    while _state.running:
        time.sleep(POLL_SECONDS)


def _end() -> None:
    """Leave only this thread running: others are daemon threads, which are about to be killed."""
    _pause()
    _state.last = threading.current_thread()


def _before_fork() -> None:
    _state.forking.acquire()
    _pause()


def _in_parent() -> None:
    _state.may_run.set()
    _state.forking.release()


def _in_child() -> None:
    _state.renew()
    for what in list(_bound):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))
    if _bound:
        _exit_at_once()


def _exit_at_once() -> None:
    """Let this process end without C's exit handlers, when Python has done all of its own.

    ONNX Runtime's wait for a thread of its own, which a fork does not take along.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc: is given the exit status, as _exit wants it
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


def return_memory() -> None:
    """Have the C library give freed memory back to the system, in this process from now on.

    Otherwise glibc raises its own limits when large blocks are freed, and keeps more and more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        mallopt(_TRIM_THRESHOLD, _LARGE_BLOCK)


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
