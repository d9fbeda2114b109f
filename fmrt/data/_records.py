"""The two things that reading a file can yield."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Record:
    """One text of the input.

    Attributes:
        number: 1-based line of the file; the line where the record starts for csv, the row for
            parquet.
        text: the text to embed.
        kept: the columns asked to be carried along, by name.
    """

    number: int
    text: str
    kept: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRecord:
    """One record of the input that holds no usable text.

    Attributes:
        number: as in ``Record``.
        reason: what is wrong with it, on one line, without the position.
    """

    number: int
    reason: str
