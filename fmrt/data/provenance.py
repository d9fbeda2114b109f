"""Where vectors come from, written with them: parquet metadata, a sidecar, a job's index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmrt.data._jsonl_vectors import EXTENSION
from fmrt.data._pyarrow import pyarrow, reading_parquet
from fmrt.data.index import read_index, read_regular
from fmrt.errors import DataError
from fmrt.whole_file import PendingFile, writing
from fmrt.words import one_line, shown

# In the metadata of a parquet schema.
KEY = b"fmrt"
# Fields that `fmrt search` uses, and what they are.
_TYPES: dict[str, tuple[type, ...]] = {
    "space": (str,),
    "model": (str,),
    "modality": (str,),
    "precision": (str,),
    "truncate_dim": (int, type(None)),
}

_WITH_SIDECAR = (".npy", EXTENSION)
Provenance = Mapping[str, Any]


def sidecar_path(vectors: str) -> Path | None:
    """``v.npy.json`` of ``v.npy``; None for a format that holds provenance itself."""
    path = Path(vectors)
    return path.with_name(f"{path.name}.json") if path.suffix.lower() in _WITH_SIDECAR else None


def sidecar(path: Path, provenance: Provenance) -> PendingFile:
    """The sidecar, ready to be committed."""
    pending = PendingFile(str(path))
    try:
        with writing(pending.output):
            pending.file.write((json.dumps(provenance, indent=1) + "\n").encode())
    except BaseException:
        pending.abort()
        raise
    return pending


def metadata(provenance: Provenance | None) -> dict[bytes, bytes] | None:
    """The metadata of a parquet schema."""
    return None if provenance is None else {KEY: json.dumps(provenance).encode()}


def read_provenance(path: str) -> dict[str, Any] | None:
    """Where the vectors of a file, or of a folder of shards, come from; None if nothing says so.

    Raises:
        DataError: what says so cannot be read, or belongs to other vectors.
    """
    if Path(path).is_dir():
        return _checked(path, read_index(path).provenance)
    if Path(path).suffix.lower() == ".parquet":
        with reading_parquet(path):
            found = (pyarrow().parquet.read_schema(path).metadata or {}).get(KEY)
        return None if found is None else _checked(path, _parsed(path, found))
    beside = sidecar_path(path)
    if beside is None or not beside.exists():
        return None
    return _of_sidecar(path, str(beside))


def _of_sidecar(path: str, beside: str) -> dict[str, Any] | None:
    try:
        content = read_regular(Path(beside))
        form = _form_of(path)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"cannot read {shown(beside)}: {one_line(e)}") from e
    found = _checked(beside, _parsed(beside, content))
    if found is not None:
        shape, dtype = found.get("shape"), found.get("dtype")
        if form not in ((shape, dtype), (shape[:1] if isinstance(shape, list) else None, None)):
            raise DataError(
                f"{shown(beside)} does not belong to {shown(path)}, which is {form[1] or 'rows'} "
                f"{form[0]}: remove it, or embed again"
            )
    return found


def _form_of(path: str) -> tuple[list[int], str | None]:
    """Shape and dtype of an array; of JSON lines their number alone, and None."""
    if Path(path).suffix.lower() == EXTENSION:
        with Path(path).open("rb") as file:
            return [sum(1 for _ in file)], None
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return list(array.shape), str(array.dtype)


def _parsed(where: str, content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as e:
        raise DataError(f"cannot read {shown(where)}: {one_line(e)}") from e


def _checked(where: str, found: object) -> dict[str, Any] | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise DataError(f"cannot read where the vectors of {shown(where)} come from")
    for name, types in _TYPES.items():
        if type(found.get(name)) not in types:
            raise DataError(
                f"cannot read where the vectors of {shown(where)} come from: {name} is "
                f"{found.get(name)!r:.40}"
            )
    return found
