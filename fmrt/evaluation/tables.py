"""The sources of records: files, folders of classes, files by split, and Arrow data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from fmrt.data import (
    MEDIA,
    BadRecord,
    Media,
    Record,
    arrow_columns,
    arrow_records,
    columns_of,
    described,
    list_files,
    read_records,
    stated_features,
)
from fmrt.errors import DataError
from fmrt.evaluation.layout import CARD, SPLIT_NAMES, Config, used_splits
from fmrt.system.limits import DEFAULT, megabytes
from fmrt.words import one_line, shown

ITEM, LABEL, SPLIT, PLACE = "item", "label", "split", "place"
_PARQUET = frozenset({".parquet", ".pq"})
_KINDS = {"Image": "image", "Audio": "audio"}
_TEXTS = frozenset({".txt", ".text", ".md"})


@dataclass(frozen=True)
class Table:
    """Records with named columns.

    Attributes:
        columns: The names of the columns.
        read: Gives the records with the values of one column, and those of other columns as kept
            values.
        modality: The items' modality.
        base: The folder that paths in the table are relative to; None where they are not relative.
        names: The classes that a column's numbers stand for, by column.
        kinds: The modality of each column that is stated to hold images or sounds.
        alone: The split that the table is, where only that one is read.
        choices: Lines about what was decided.
    """

    columns: Sequence[str]
    read: Callable[[str | None, Sequence[str]], Iterator[Record | BadRecord]]
    modality: str
    base: Path | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    alone: str | None = None
    choices: Sequence[str] = ()


def file_table(source: str, modality: str) -> Table:
    """The table of a file with one record per row or per line."""
    choices: list[str] = []

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        records = read_records(source, column=column, keep=keep, modality=modality)
        choices.extend(records.choices)
        return records

    path = Path(source)
    base = path.parent if modality != "text" else None
    features = stated_features(path) if path.suffix.lower() in _PARQUET else {}
    return Table(
        columns_of(source, modality=modality),
        read,
        modality,
        base,
        *_meaning(features),
        choices=choices,
    )


def _meaning(features: Mapping[str, Any]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Names of classes, and modalities, both by column, as Hugging Face's library states them."""
    known = {name: one for name, one in features.items() if isinstance(one, dict)}
    kinds = {name: str(one.get("_type")) for name, one in known.items()}
    names = {name: one.get("names") for name, one in known.items() if kinds[name] == "ClassLabel"}
    return (
        {name: list(map(str, own)) if isinstance(own, list) else [] for name, own in names.items()},
        {name: _KINDS[kind] for name, kind in kinds.items() if kind in _KINDS},
    )


def folder_table(root: Path, modality: str) -> Table:
    """The table of a folder with one subfolder per class, or with those in train and test."""
    media = MEDIA.get(modality) or Media("text file", "fmrt", _TEXTS, _is_plain)
    found = list_files(root, media)
    passed = [f"{root}: passed over {line}" for line in described(found.passed_over)]
    if not found.paths:
        raise DataError(
            f"{shown(str(root))} holds no {media.noun}; {'; '.join(passed)}".rstrip("; ")
        )
    card = root / CARD
    paths = [path for path in found.paths if path != card] or found.paths
    parts = [path.relative_to(root).parts[:-1] for path in paths]
    split = all(p and p[0].lower() in SPLIT_NAMES for p in parts)
    labelled = any(len(p) > split for p in parts)
    columns = [ITEM, *([LABEL] if labelled else []), *([SPLIT] if split else [])]

    def read(_: str | None, __: Sequence[str]) -> Iterator[Record | BadRecord]:
        for number, (path, own) in enumerate(zip(paths, parts, strict=True), 1):
            label = own[split] if len(own) > split else None
            kept = {LABEL: label, SPLIT: own[0] if split else None, PLACE: str(path)}
            yield _of_file(number, path, modality, kept)

    said = [f"{root}: a subfolder is a class"] if labelled else []
    return Table(columns, read, modality, choices=[*said, *passed])


def _is_plain(path: Path) -> bool:
    return not path.suffix or path.suffix[1:].isdigit()


def _of_file(
    number: int, path: Path, modality: str, kept: Mapping[str, object]
) -> Record | BadRecord:
    if modality != "text":
        return Record(number, str(path), kept)
    try:
        if path.stat().st_size > DEFAULT.item_bytes:
            return BadRecord(number, f"{str(path)!r} has over {megabytes(DEFAULT.item_bytes)}")
        return Record(number, path.read_bytes().decode("utf-8-sig"), kept)
    except UnicodeDecodeError:
        return BadRecord(number, f"{str(path)!r} is not UTF-8")
    except OSError as e:
        return BadRecord(number, f"{str(path)!r} cannot be read: {one_line(e)}")


def repository_table(
    source: str, root: Path, config: Config, modality: str, split: str | None
) -> Table:
    """The table of the files by split, of one configuration of a repository of data.

    Args:
        source: The table's name in messages.
        root: The folder that the files are in.
        config: The configuration, with the names of files by split.
        modality: The items' modality.
        split: The only split to read, if it is one; None, or the name of a column, for all.
    """

    def of(name: str) -> list[Table]:
        return [file_table(str(root / file), modality) for file in config.splits[name]]

    found = _by_split(source, list(config.splits), of, split)
    return replace(found, names={**config.classes, **found.names})


def _by_split(
    source: str, splits: Sequence[str], of: Callable[[str], Sequence[Table]], split: str | None
) -> Table:
    """The tables of the splits that are used, as one table."""
    used, left_out = used_splits(source, splits, split)
    known = any(name.lower() in SPLIT_NAMES for name in used)
    found = joined({name: of(name) for name in used}, left_out, split=known)
    return replace(found, alone=split if split in splits else None)


def joined(tables: Mapping[str, Sequence[Table]], choices: Sequence[str], *, split: bool) -> Table:
    """Tables of one form as one table; with ``split``, the split of each record is a column."""
    known = [*choices]
    all_of_them = [(name, table) for name, own in tables.items() for table in own]
    first = all_of_them[0][1]
    columns = [c for c in first.columns if all(c in t.columns for _, t in all_of_them)]
    columns = [*(c for c in columns if c != SPLIT), SPLIT] if split else columns

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        for name, table in all_of_them:
            own = [c for c in keep if c != SPLIT or not split]
            for record in table.read(column, own):
                yield _placed(record, name, table.base, split=split)
            known.extend(table.choices)  # a table has them once it is read

    return replace(first, columns=columns, read=read, choices=known)


def _placed(
    record: Record | BadRecord, name: str, base: Path | None, *, split: bool
) -> Record | BadRecord:
    """A record of one of several tables, with its place and with an absolute path."""
    if isinstance(record, BadRecord):
        return record._replace(reason=f"of {name}: {record.reason}") if name else record
    kept = {**record.kept, PLACE: f"{name or 'record'} {record.number}"}
    value = record.value
    if base is not None and isinstance(value, str):
        value = str((base / value).absolute())
    return record._replace(value=value, kept={**kept, SPLIT: name} if split else kept)


def arrow_table(source: str, root: Path, modality: str, split: str | None) -> Table | None:
    """A data set that Hugging Face's ``save_to_disk`` wrote; None if the folder holds none."""
    if (root / "dataset_dict.json").is_file():
        splits = _json(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise DataError(f"{shown(str(root))} names no splits in its dataset_dict.json")
        folders = {str(name): root / Path(str(name)).name for name in splits}
        return _by_split(
            source, list(folders), lambda name: [_arrow_split(folders[name], modality)], split
        )
    return _arrow_split(root, modality) if (root / "state.json").is_file() else None


def _arrow_split(root: Path, modality: str) -> Table:
    state = _json(root / "state.json")
    try:
        files = [root / Path(entry["filename"]).name for entry in state["_data_files"]]
    except (KeyError, TypeError):
        files = []
    if not files:
        raise DataError(f"{shown(str(root))} names no data files in its state.json")
    if state.get("_indices_files"):
        raise DataError(f"{shown(str(root))} is a selection; save it after flatten_indices()")
    features = _json(root / "dataset_info.json").get("features")

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        return arrow_records(files, column or columns[0], keep)

    columns = arrow_columns(files[0])
    meaning = _meaning(features if isinstance(features, dict) else {})
    return Table(columns, read, modality, root if modality != "text" else None, *meaning)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise DataError(f"cannot read {shown(str(path))}: {one_line(e)}") from e
    if not isinstance(found, dict):
        raise DataError(f"{shown(str(path))} is no JSON object")
    return found


def all_records(
    table: Table, column: str | None, keep: Sequence[str]
) -> Iterator[Record | BadRecord]:
    """The records of a table. It is an error if there are none."""
    records = table.read(column, keep)
    for first in records:
        return chain([first], records)
    raise DataError("the data set is empty")
