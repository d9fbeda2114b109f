"""Failures of the tokenizers library, which raises bare exceptions, and panics that are none."""

from __future__ import annotations

from fmrt.errors import BundleCorruptError, FmrtError, is_failure, said


class TokenizerFailedError(BundleCorruptError):
    """The tokenizer fails, for one text or for all."""


class _Failing:
    """See `failing`; a generator would take longer than what a query does here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, FmrtError | MemoryError):
            return
        if is_failure(error):
            raise TokenizerFailedError(f"the tokenizer fails: {said(error)}") from error


_FAILING = _Failing()


def failing() -> _Failing:
    """Raise ours for what the library raises, in a ``with`` statement.

    Raises:
        TokenizerFailedError: The library failed; holds what it said.
    """
    return _FAILING
