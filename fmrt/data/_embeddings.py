"""Reading back the vectors that a writer wrote."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fmrt.data._output_format import Embeddings
from fmrt.data._outputs import extensions, format_of
from fmrt.data._source import check_source
from fmrt.data.index import read_index
from fmrt.data.provenance import read_provenance
from fmrt.data.shard import Shard
from fmrt.errors import DataError
from fmrt.words import shown


def read_embeddings(path: str, *, columns: Sequence[str] = ()) -> Embeddings:
    """Return the vectors [n, dim] of ``path`` in their stored dtype, and the columns it has.

    Args:
        path: A .npy file, which is memory-mapped; a .parquet or .jsonl file with a column
            "embedding"; or a folder of shards, all of which are read into memory.
        columns: The names of columns to return as lists of n; those that do not exist are left out.

    Raises:
        DataError: ``path`` is not such a file.
        MissingExtraError: The file is parquet, and pyarrow is not installed.
    """
    if Path(path).is_dir():
        return _read_folder(path, columns)
    check_source(path)
    known = format_of(path)
    if known is None:
        raise DataError(f"cannot read vectors from {shown(path)}: give a {extensions()} file")
    return known.read(path, columns, partial(read_provenance, path))


def _read_folder(folder: str, columns: Sequence[str]) -> Embeddings:
    parts = [_read_shard(folder, shard, columns) for shard in read_index(folder).shards]
    try:
        kept = {name: [v for _, found in parts for v in found[name]] for name in parts[0][1]}
        return np.concatenate([vectors for vectors, _ in parts]), kept
    except (ValueError, KeyError) as e:
        raise DataError(f"the shards in {shown(folder)} are not of one job: embed again") from e


def _read_shard(folder: str, shard: Shard, columns: Sequence[str]) -> Embeddings:
    if (damaged := shard.damage(Path(folder))) is not None:
        raise DataError(
            f"{damaged!r} of {shown(folder)} is not as it was written: the command that made the "
            "job computes it again"
        )
    vectors, kept = read_embeddings(str(Path(folder, shard.file)), columns=columns)
    if len(vectors) != shard.rows:
        raise DataError(f"{shard.file!r} of {shown(folder)} has not the {shard.rows} rows it had")
    return vectors, kept
