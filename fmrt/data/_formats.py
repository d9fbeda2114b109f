"""The table of input formats, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fmrt.data._columns import DEFAULTS, Wanted
from fmrt.data._csv import read_csv, read_tsv
from fmrt.data._folder import read_files
from fmrt.data._jsonl import read_jsonl
from fmrt.data._media import MEDIA, Media
from fmrt.data._parquet_records import read_parquet
from fmrt.data._records import BadRecord, Record, Records
from fmrt.data._source import check_source, reading
from fmrt.data._txt import read_txt
from fmrt.errors import DataError
from fmrt.system.limits import DEFAULT, Limits
from fmrt.words import STDIN, shown

Reader = Callable[[str, Wanted], Iterator[Record | BadRecord]]


DELIMITED = ("csv", "tsv")


@dataclass(frozen=True)
class Format:
    """One input format.

    Attributes:
        name: The name that ``--format`` takes.
        extensions: The extensions of its files, with the dot; text formats may have .gz after it.
        read: A function that takes the source, and what is asked of it.
    """

    name: str
    extensions: tuple[str, ...]
    read: Reader


FORMATS = (
    Format("txt", (".txt",), read_txt),
    Format("jsonl", (".jsonl", ".ndjson", ".json"), read_jsonl),
    Format("csv", (".csv",), read_csv),
    Format("tsv", (".tsv", ".tab"), read_tsv),
    Format("parquet", (".parquet", ".pq"), read_parquet),
)


def read_records(
    source: str,
    *,
    format: str | None = None,  # noqa: A002  # named as the option is
    column: str | None = None,
    keep: Sequence[str] = (),
    modality: str = "text",
    delimiter: str | None = None,
    header: bool = True,
    limits: Limits = DEFAULT,
) -> Records:
    """Return the records of ``source``, read as they are asked for, in bounded memory.

    Args:
        source: A path, or "-" for standard input.
        format: The format: txt, jsonl, csv, tsv or parquet; by default what the extension says, txt
            for "-". A path that ends in .gz is decompressed first, except for parquet.
        column: The column to embed; by default the one named as the modality, "path" or
            "file_name", or the only column of strings.
        keep: The columns to carry along; "line" is the record's number unless a column has that
            name.
        modality: The modality: text, image or audio. For the last two, a folder is searched for
            files that can be embedded, and such a file is a record.
        delimiter: The character between the fields of csv or tsv; by default what the file shows.
        header: Whether csv or tsv begins with the names of its columns, which are else "1", "2" ...
        limits: The limits of a record's memory; a larger one is a ``BadRecord``.

    Returns:
        A ``Record`` for each good record and a ``BadRecord`` for each bad one, in order; and what
        was chosen and passed over.

    Raises:
        DataError: The input cannot be read, has no record or lacks a column (at once), or reading
            fails halfway (while iterating).
        MissingExtraError: The file is parquet, and pyarrow is not installed.
    """
    if modality not in DEFAULTS:
        raise DataError(f"modality={modality!r}; choose one of {', '.join(DEFAULTS)}")
    media = MEDIA.get(modality)
    if media is not None and format is None and _is_media(source, media):
        return read_files(source, media, column, keep)
    check_source(source)
    chosen = _named(format, source)
    if (delimiter is not None or not header) and chosen.name not in DELIMITED:
        raise DataError(f"{shown(source)} is {chosen.name}; --delimiter and --no-header are of csv")
    kept = tuple(dict.fromkeys(keep))
    wanted = Wanted(column, kept, delimiter, header, modality, limits)
    records = chosen.read(source, wanted)
    return Records(records, choices=[f"{shown(source)}: {c}" for c in wanted.choices], table=True)


def columns_of(source: str, *, modality: str = "text", limits: Limits = DEFAULT) -> list[str]:
    """Names of the columns of a table.

    Raises:
        DataError: The table cannot be read, or has no columns.
        MissingExtraError: The file is parquet, and pyarrow is not installed.
    """
    check_source(source)
    wanted = Wanted(modality=modality, limits=limits)
    try:
        _named(None, source).read(source, wanted)
    except DataError:
        if not wanted.seen:  # else it cannot tell which one to embed, which is not asked
            raise
    return wanted.seen


def modality_of(source: str, modalities: Sequence[str]) -> str | None:
    """Which of some modalities, but text, a folder or a file holds; None if none of them.

    Args:
        source: A path, or "-".
        modalities: The modalities of a bundle.
    """
    for name in modalities:
        if name in MEDIA and _is_media(source, MEDIA[name]):
            return name
    return None


def _is_media(source: str, media: Media) -> bool:
    """Whether a source is a folder, or an image or sound itself."""
    if source == STDIN:
        return False
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in media.extensions:
        return True
    known = {extension for entry in FORMATS for extension in entry.extensions}
    return (
        _extension(source.removesuffix(".gz")) not in known and path.is_file() and media.reads(path)
    )


def _named(name: str | None, source: str) -> Format:
    if name is None and source == STDIN:
        name = "txt"
    if name is None:
        return _by_extension(source)
    for known in FORMATS:
        if known.name == name:
            return known
    raise DataError(f"unknown format {name!r}; choose one of {_names()}")


def _by_extension(source: str) -> Format:
    extension = _extension(source.removesuffix(".gz"))
    name = _by_content(source)
    for known in FORMATS:
        if extension in known.extensions or name == known.name:
            return known
    extensions = ", ".join(e for known in FORMATS for e in known.extensions)
    raise DataError(
        f"cannot tell the format of {shown(source)}: its name ends in none of {extensions}; "
        f"say --format {_names()}"
    )


def _by_content(source: str) -> str | None:
    """Format of a file of another extension that begins as no text could."""
    with reading(source), Path(source).open("rb") as file:
        return "parquet" if file.read(4) == b"PAR1" else None


def _extension(source: str) -> str:
    return PurePath(source.lower()).suffix


def _names() -> str:
    return ", ".join(known.name for known in FORMATS[:-1]) + f" or {FORMATS[-1].name}"
