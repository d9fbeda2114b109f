"""A second session of the same graph, on several threads, for a batch that has the cores alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fmrt.session.base import Session
from fmrt.system import native
from fmrt.system.huge_pages import huge_pages


class AllCores:
    """Opened in the background when wanted for the second time; until then nobody waits for it.

    A process that embeds one text and ends, or one large corpus, needs none. One that ends
    meanwhile waits for it.

    Args:
        open_session: A function that opens the session.
    """

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open = open_session
        self._session: Session | None = None
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._wanted = 0
        self._lock = threading.Lock()
        self._in_use = threading.Lock()

    def take(self) -> Session | None:
        """The session until `give_back`; None while it is not open or another caller has it.

        Two callers at a time would be slower.

        Raises:
            FmrtError: It could not be opened.
        """
        if self._session is None:
            self._start()
            return None
        return self._session if self._in_use.acquire(blocking=False) else None

    def give_back(self) -> None:
        """Let others have the session that `take` gave."""
        self._in_use.release()

    def wait(self) -> None:
        """Wait until it is not being opened any more."""
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._failure is not None:
            raise self._failure
        with self._lock:
            self._wanted += 1
            # Threads that start at the interpreter's end have nobody who waits for them.
            if self._thread is None and self._wanted > 1 and not native.ending():
                self._thread = threading.Thread(target=self._run, name="fmrt-open", daemon=False)
                self._thread.start()

    def _run(self) -> None:
        try:
            with huge_pages():
                self._session = self._open()
        except BaseException as e:  # raised where the session is asked for
            self._failure = e
