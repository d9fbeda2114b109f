"""Length-aware batches under a token budget, one worker per core, results in input order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby, repeat
from threading import local
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Rows
from fmrt.errors import ClosedError, ProcessError
from fmrt.system import native

T = TypeVar("T")
R = TypeVar("R")

# A small budget keeps a batch's activations in the core's cache; see docs/performance.md.
BATCH_TOKENS = 512
# Items are sorted by length within a window; two windows are in flight at any time.
WINDOW_ITEMS = 8192
# Batches at a window's end are not made smaller than this part of the budget.
SMALLEST_SHARE = 8
# What a batch costs besides its tokens, as a part of the budget.
BATCH_COST = 1 / 128


def plan_batches(
    lengths: NDArray[np.int64],
    batch_tokens: int,
    *,
    longest_padded: int | None = None,
    workers: int = 1,
) -> list[Rows]:
    """Rows grouped into batches of like length, longest first.

    Every row is in exactly one batch. A batch holds at most ``batch_tokens`` tokens, padding
    included, unless it is a single row that is longer. Towards the end batches shrink to half of a
    worker's share of what is left, so that the workers end together (guided self-scheduling,
    Polychronopoulos and Kuck 1987). A batch ends early, but not before its half, where a token then
    costs least: where the next row is much shorter, it would be padding for the most part.

    Args:
        lengths: Tokens of each row, int64 ``[n]``.
        batch_tokens: The budget.
        longest_padded: Tokens of the longest row that may share a batch with rows of other
            lengths; None for any.
        workers: The number of threads that take batches at the same time.
    """
    if len(lengths) == 1:
        return [np.zeros(1, np.int64)]
    order = np.argsort(-lengths, kind="stable")
    left = np.cumsum(lengths[order[::-1]])[::-1]
    least = max(1, batch_tokens // SMALLEST_SHARE)
    batches: list[Rows] = []
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        share = int(left[start]) // (2 * workers) if workers > 1 else batch_tokens
        size = max(1, min(batch_tokens, max(least, share)) // max(1, longest))
        rows = order[start : start + size]
        if longest_padded is not None and longest > longest_padded:
            rows = rows[lengths[rows] == longest]
        elif lengths[rows[-1]] < longest and start + len(rows) < len(order):
            computed = np.arange(1, len(rows) + 1) * longest + BATCH_COST * batch_tokens
            half = (len(rows) - 1) // 2
            rows = rows[: half + 1 + np.argmin((computed / np.cumsum(lengths[rows]))[half:])]
        batches.append(rows)
        start += len(rows)
    return batches


def window_sizes(most: int, least: int, total: int | None) -> Iterator[int]:
    """Most items of each window of a stream, so that a fast device waits for little.

    The device has nothing to do while the first window is prepared, and the caller has nothing to
    do while the last one is computed. So windows grow from ``least``, doubling, and shrink to half
    of what is left towards a known end. In between, a window larger than an eighth of the stream
    would be computed after all others are prepared, and a smaller one would be padded more.

    Args:
        most: Most items of a window.
        least: Items of the first window.
        total: Items of the stream; None if that is not known.
    """
    size = least
    if total is None:
        while True:
            yield size
            size = min(most, 2 * size)
    most = min(most, total // 8)
    while True:
        size = max(least, min(size, most, total // 2))
        yield size
        total -= size
        size *= 2


def windows(
    items: Iterable[T],
    weight: Callable[[T], int],
    most: int,
    sizes: Iterator[int] | None = None,
    group_of: Callable[[T], object] | None = None,
) -> Iterator[list[T]]:
    """Cut a stream into lists of about ``most`` total weight, and at most ``WINDOW_ITEMS``.

    A list ends, too, where ``group_of`` an item changes, and where the stream fails.

    Args:
        items: The stream.
        weight: The function that gives an item's weight.
        most: Most weight of a list.
        sizes: Most items of each list, such as `window_sizes` gives.
        group_of: The function that gives an item's group.
    """
    sizes = sizes or repeat(WINDOW_ITEMS)
    failures: list[Exception] = []
    items = until_failure(items, failures)
    for group in (items,) if group_of is None else (g for _, g in groupby(items, group_of)):
        window: list[T] = []
        total, size = 0, next(sizes)
        for item in group:
            window.append(item)
            total += weight(item)
            if len(window) >= size or total >= most:
                yield window
                window, total, size = [], 0, next(sizes)
        if window:
            yield window
    if failures:
        raise failures[0]


def until_failure(items: Iterable[T], failures: list[Exception]) -> Iterator[T]:
    """The items, without the exception that ends them early: it is put to ``failures``.

    So whoever iterates can finish what came before, and raise it then.
    """
    try:
        yield from items
    except Exception as e:  # whatever a caller's iterable raises
        failures.append(e)


# Whether a thread is one of `Workers`.
_thread = local()


def _begin_thread() -> None:
    _thread.works = True


class _Task(Generic[R]):
    """A call that a thread makes, or whoever asks for its result where the threads have ended.

    At the interpreter's end threads drop what they have not begun: mostly nobody waits for it.
    """

    def __init__(self, pool: ThreadPoolExecutor, call: Callable[[], R]) -> None:
        self._call = call
        self._process = os.getpid()
        try:
            self._future = pool.submit(_unless_ending, call)
        except RuntimeError:
            if not native.ending():  # closed
                raise
            self._future = Future()
            self._future.cancel()

    def result(self) -> R:
        """The call's result, or what it raised.

        Raises:
            ProcessError: In a process that was forked meanwhile, where nobody makes the call.
        """
        if self._process != os.getpid():
            raise ProcessError(
                "this stream began before fork() and its threads are the parent's; begin it in "
                "the process that reads it"
            )
        try:
            return self._future.result()
        except CancelledError:
            if not native.ending():  # closed
                raise
            return self._call()

    def cancel(self) -> None:
        """Do not begin the call."""
        if self._process == os.getpid():
            self._future.cancel()


def _unless_ending(call: Callable[[], R]) -> R:
    if native.ending():
        raise CancelledError
    return call()


class Workers:
    """Threads over one shared session; windows of jobs overlap, results keep their order.

    Args:
        count: Threads.
        ahead: Items that `map` takes ahead of its results; default 4 a thread.
    """

    def __init__(self, count: int, ahead: int | None = None) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "fmrt", _begin_thread)
        self._ahead = 4 * count if ahead is None else ahead
        self._closed = False

    def run(self, jobs: Iterable[tuple[T, list[Callable[[], None]]]]) -> Iterator[T]:
        """Run each entry's calls in parallel and yield its value when all are done, in order.

        One entry is prepared while the one before it runs, so workers do not wait for the caller.
        An exception in a call is raised here, and calls not yet started are dropped; one of
        ``jobs`` itself is raised when the entries before it are done.

        Raises:
            ClosedError: `close` was called meanwhile.
        """
        pending: deque[tuple[T, list[_Task[None]]]] = deque()
        failures: list[Exception] = []
        try:
            with self._open():
                for value, calls in until_failure(jobs, failures):
                    pending.append((value, [_Task(self._pool, call) for call in calls]))
                    if len(pending) > 1:
                        yield _finish(*pending.popleft())
                while pending:
                    yield _finish(*pending.popleft())
        finally:
            for _, tasks in pending:
                for task in tasks:
                    task.cancel()
        if failures:
            raise failures[0]

    def map(self, call: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results of ``call`` in the order of ``items``, a few of which are worked on ahead.

        In a thread of `Workers` the calls are made right there: it would wait for threads that
        may all wait like it. An exception of ``items`` is raised after the results before it.

        Raises:
            ClosedError: `close` was called meanwhile.
        """
        if getattr(_thread, "works", False):
            yield from map(call, items)
            return
        pending: deque[_Task[R]] = deque()
        failures: list[Exception] = []
        try:
            with self._open():
                for item in until_failure(items, failures):
                    pending.append(_Task(self._pool, partial(call, item)))
                    if len(pending) > self._ahead:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Wait for running calls and end the threads."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Say that the threads have ended, where that is why something fails."""
        try:
            yield
        except (CancelledError, RuntimeError) as e:
            if self._closed:
                raise ClosedError from e
            raise


def _finish(value: T, tasks: list[_Task[None]]) -> T:
    try:
        for task in tasks:
            task.result()
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    return value
