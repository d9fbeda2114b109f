"""ONNX Runtime's own logger is silent during calls of ours, and as it was for a user's sessions.

A session's options do not govern it. What fails is an exception with the reason, and `diagnosis`
asks the loader of libraries before a session does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

FATAL = 4
# ONNX Runtime's default. What a user set in its place cannot be asked for.
WARNING = 2
_lock = threading.Lock()
_calls: list[object] = []


@contextmanager
def silent() -> Iterator[None]:
    """Let the logger say nothing until the last of such calls has ended."""
    call = object()
    with _lock:
        _calls.append(call)
        ort.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        with _lock:
            _calls.remove(call)
            if not _calls:
                ort.set_default_logger_severity(WARNING)
