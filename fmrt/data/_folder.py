"""Files of a folder, or one file, as records that hold their paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmrt.data._columns import LINE
from fmrt.data._media import Media
from fmrt.data._records import BadRecord, PassedOver, Record, Records
from fmrt.data._source import check_source, reading
from fmrt.errors import DataError
from fmrt.system.file_kind import unusual_kind
from fmrt.words import shown

PATH = "path"


@dataclass
class Listing:
    """The files below a folder.

    Attributes:
        paths: The paths to be embedded, in order.
        passed_over: The others, in order, with the reason.
    """

    paths: list[Path] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def read_files(source: str, media: Media, column: str | None, keep: Sequence[str]) -> Records:
    """Return one record per file below ``source`` that can be embedded, in the order of paths.

    "path" can be kept: it is relative to ``source``.

    Raises:
        DataError: There is no such file, or an option that a folder cannot follow.
    """
    if column is not None:
        raise DataError(f"{shown(source)} is no table; leave out --column")
    for name in keep:
        if name not in (PATH, LINE):
            raise DataError(f"{shown(source)} has {PATH!r} and {LINE!r} to keep, not {name!r}")
    root = Path(source)
    if not root.is_dir():
        check_source(source)
        return Records(iter([_record(1, root, root.parent, keep)]))
    found = list_files(root, media)
    if not found.paths:
        raise DataError(f"{shown(source)} holds no {media.noun}{_counted(found.passed_over)}")
    records = (_record(i, path, root, keep) for i, path in enumerate(found.paths, 1))
    return Records(records, passed_over=found.passed_over)


def list_files(root: Path, media: Media) -> Listing:
    """List the files below a folder; links are followed, but no folder is listed twice.

    Raises:
        DataError: A folder cannot be read.
    """
    listing = Listing()
    with reading(str(root)):
        for path, found in sorted(_below(root)):
            reason = found or _reason(path, media)
            if reason is None:
                listing.paths.append(path)
            else:
                name = path.relative_to(root).as_posix()
                listing.passed_over.append(PassedOver(name, reason))
    return listing


def _below(root: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder, and folders that are passed over with the reason."""
    seen: set[tuple[int, int]] = set()
    # Links to folders last: what they lead to may be below the folder itself.
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            yield folder, "links to folders that are listed already"
            continue
        seen.add((status.st_dev, status.st_ino))
        with reading(str(folder)), os.scandir(folder) as entries:
            for entry in entries:
                path = Path(folder, entry.name)
                if entry.name.startswith("."):
                    yield path, "hidden"
                elif not _is_folder(entry):
                    yield path, ""
                else:
                    (links if entry.is_symlink() else folders).append(path)
        links.sort()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _reason(path: Path, media: Media) -> str | None:
    """Why a file is passed over, or None."""
    try:
        kind = unusual_kind(path)
    except OSError as e:
        # One that promises an image is missed, and an error when its turn comes.
        if path.suffix.lower() in media.extensions:
            return None
        return "links to nothing" if path.is_symlink() else str(e.strerror)
    if kind is not None:
        return f"no regular files ({kind})"
    return None if media.holds(path) else f"no {media.noun} that {media.library} reads"


def _counted(passed_over: Sequence[PassedOver]) -> str:
    lines = described(passed_over)
    return f": it passed over {'; '.join(lines)}" if lines else ": it is empty"


def described(passed_over: Sequence[PassedOver], most: int = 5) -> list[str]:
    """Say, for each reason, how many files were passed over, and name the first of them."""
    reasons: dict[str, list[str]] = {}
    for path, reason in passed_over:
        reasons.setdefault(reason, []).append(path)
    return [
        f"{len(names):,} ({reason}): {', '.join(map(repr, names[:most]))}"
        + (f" and {len(names) - most:,} more" if len(names) > most else "")
        for reason, names in reasons.items()
    ]


def _record(number: int, path: Path, base: Path, keep: Sequence[str]) -> Record | BadRecord:
    values = {PATH: path.relative_to(base).as_posix(), LINE: number}
    if PATH in keep and not _is_text(str(values[PATH])):
        return BadRecord(number, f"its name {values[PATH]!r} is not UTF-8, and cannot be kept")
    return Record(number, str(path), {name: values[name] for name in keep})


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
