"""Failures of the tokenizers library, which raises bare exceptions, and panics that are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fmrt.errors import BundleCorruptError, FmrtError, said


class TokenizerFailedError(BundleCorruptError):
    """The tokenizer fails, for one text or for all."""


@contextmanager
def failing() -> Iterator[None]:
    """Raise ours for what the library raises.

    Raises:
        TokenizerFailedError: The library failed; holds what it said.
    """
    try:
        yield
    except (FmrtError, MemoryError):
        raise
    except BaseException as e:
        # A panic in Rust is a BaseException that cannot be imported.
        if isinstance(e, Exception) or type(e).__name__ == "PanicException":
            raise TokenizerFailedError(f"the tokenizer fails: {said(e)}") from e
        raise
