"""What is known of a complete shard."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Shard:
    """One complete shard.

    Attributes:
        number: from 0.
        file: its name in the folder.
        rows: vectors in it.
        records: of the input, that it covers.
        skipped: records without a vector.
        size: bytes of the file.
        sha256: of the file.
    """

    number: int
    file: str
    rows: int
    records: int
    skipped: int
    size: int
    sha256: str

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shard:
        """The shard of an entry.

        Raises:
            ValueError: it is no such entry.
        """
        try:
            shard = cls(**values)
        except TypeError as e:
            raise ValueError(f"not a shard: {values!r:.80}") from e
        for field in dataclasses.fields(cls):
            wanted = str if field.type == "str" else int
            if not isinstance(getattr(shard, field.name), wanted):
                raise ValueError(f"{field.name} of a shard is {getattr(shard, field.name)!r:.40}")  # noqa: TRY004
        return shard

    def to_json(self) -> dict[str, Any]:
        """The entry of the shard."""
        return dataclasses.asdict(self)

    def is_in(self, folder: Path) -> bool:
        """Whether its file is there, and as long as it was."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.size
