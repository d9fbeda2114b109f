"""The two things that reading a file can yield."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Record(NamedTuple):
    """One item of the input.

    Attributes:
        number: 1-based line of the file; the line where the record starts for csv, the row for
            parquet.
        value: what to embed: a text, a path, or the bytes of a file.
        kept: the columns asked to be carried along, by name.
    """

    number: int
    value: str | bytes
    kept: Mapping[str, object] = _NOTHING


class BadRecord(NamedTuple):
    """One record of the input that holds nothing usable.

    Attributes:
        number: as in ``Record``.
        reason: what is wrong with it, on one line, without the position.
    """

    number: int
    reason: str
