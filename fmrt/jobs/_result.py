"""What a run has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Embedded:
    """What is there after a run.

    Attributes:
        rows: The number of vectors in the output, those of earlier runs of a job too.
        computed: The number of vectors that this run has written.
        shards: The shards of a job; 0 for a file.
        skipped: The number of records without a vector.
        seconds: The seconds from the first record to the last vector, of this run.
        files: The files that hold the vectors and what belongs to them, in order; none on standard
            output.
    """

    rows: int
    computed: int
    shards: int
    skipped: int
    seconds: float
    files: tuple[Path, ...]
