"""Where vectors come from, written with them: parquet metadata, a sidecar, a job's index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmrt.data._output_format import OutputFormat, Provenance
from fmrt.data._outputs import format_of
from fmrt.data.index import read_index, read_regular
from fmrt.errors import DataError
from fmrt.system.whole_file import PendingFile, writing
from fmrt.words import one_line, shown

# Fields that `fmrt search` uses, and what they are.
_TYPES: dict[str, tuple[type, ...]] = {
    "space": (str,),
    "model": (str,),
    "modality": (str,),
    "precision": (str,),
    "truncate_dim": (int, type(None)),
}


def sidecar_path(vectors: str) -> Path | None:
    """``v.npy.json`` of ``v.npy``; None for a format that holds provenance itself."""
    path, known = Path(vectors), format_of(vectors)
    if known is None or known.provenance is not None:
        return None
    return path.with_name(f"{path.name}.json")


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


def read_provenance(path: str) -> dict[str, Any] | None:
    """Where the vectors of a file, or of a folder of shards, come from; None if nothing says so.

    Raises:
        DataError: What says so cannot be read, or belongs to other vectors.
    """
    if Path(path).is_dir():
        return _checked(path, read_index(path).provenance)
    known = format_of(path)
    if known is None:
        return None
    if known.provenance is not None:
        found = known.provenance(path)
        return None if found is None else _checked(path, _parsed(path, found))
    beside = f"{path}.json"
    return _of_sidecar(path, known, beside) if Path(beside).exists() else None


def _of_sidecar(path: str, known: OutputFormat, beside: str) -> dict[str, Any] | None:
    try:
        content = read_regular(Path(beside))
        form = ([], None) if known.shape_of is None else known.shape_of(path)
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
