"""A second session of the same graph, on several threads, for a batch that has the cores alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from fmrt.session.base import Session
from fmrt.session.huge_pages import huge_pages
from fmrt.system import native


class AllCores:
    """Opened in the background when wanted for the second time; until then nobody waits for it.

    A process that embeds one text and ends, or one large corpus, needs none. One that ends
    meanwhile waits for it.

    Args:
        open_session: Opens it.
    """

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open = open_session
        self._opened: Future[Session] | None = None
        self._thread: threading.Thread | None = None
        self._wanted = 0
        self._lock = threading.Lock()
        self._in_use = threading.Lock()

    @contextmanager
    def session(self) -> Iterator[Session | None]:
        """The session, or None while it is not open or another caller has it: two would be slower.

        Raises:
            FmrtError: It could not be opened.
        """
        opened = self._start()
        if opened is None or not opened.done() or not self._in_use.acquire(blocking=False):
            yield None
            return
        try:
            yield opened.result()
        finally:
            self._in_use.release()

    def wait(self) -> None:
        """Wait until it is not being opened any more."""
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> Future[Session] | None:
        with self._lock:
            self._wanted += 1
            # Threads that start at the interpreter's end have nobody who waits for them.
            if self._opened is None and self._wanted > 1 and not native.ending():
                self._opened = Future()
                self._thread = threading.Thread(
                    target=self._run, args=(self._opened,), name="fmrt-open", daemon=False
                )
                self._thread.start()
            return self._opened

    def _run(self, opened: Future[Session]) -> None:
        try:
            with huge_pages():
                session = self._open()
            opened.set_result(session)
        except BaseException as e:  # raised where the session is asked for
            opened.set_exception(e)
