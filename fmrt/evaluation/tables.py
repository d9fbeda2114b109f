"""Where records come from: files, folders of classes, splits, Arrow data sets and bundled ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
)
from fmrt.errors import DataError
from fmrt.system.limits import DEFAULT, megabytes
from fmrt.words import one_line, shown

ITEM, LABEL, SPLIT, PLACE = "item", "label", "split", "place"
# How names of splits count: a model learns from the first kind, and is tested on the second.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
TABLE_FILE = re.compile(
    r"(train|test|validation|valid|val|dev)(-\d+-of-\d+)?\.(csv|tsv|jsonl|json|parquet)", re.I
)
_TEXTS = frozenset({".txt", ".text", ".md"})


@dataclass(frozen=True)
class Table:
    """Records with named columns.

    Attributes:
        columns: that there are.
        read: gives the records with a column's values, and others carried along.
        modality: of the items.
        base: folder that paths in it are relative to; None where they are not.
        names: of the classes that a column's numbers stand for.
        choices: what was decided, a line each.
    """

    columns: Sequence[str]
    read: Callable[[str | None, Sequence[str]], Iterator[Record | BadRecord]]
    modality: str
    base: Path | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    choices: Sequence[str] = ()


def file_table(source: str, modality: str) -> Table:
    """A csv, tsv, jsonl or parquet file."""
    choices: list[str] = []

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        records = read_records(source, column=column, keep=keep, modality=modality)
        choices.extend(records.choices)
        return records

    base = Path(source).parent if modality != "text" else None
    return Table(columns_of(source, modality=modality), read, modality, base, {}, choices)


def folder_table(root: Path, modality: str) -> Table:
    """A folder with a subfolder a class, or with such folders in train and test."""
    media = MEDIA.get(modality) or Media("text file", "fmrt", _TEXTS, _is_plain)
    found = list_files(root, media)
    passed = [f"{root}: passed over {line}" for line in described(found.passed_over)]
    if not found.paths:
        raise DataError(
            f"{shown(str(root))} holds no {media.noun}; {'; '.join(passed)}".rstrip("; ")
        )
    parts = [path.relative_to(root).parts[:-1] for path in found.paths]
    split = all(p and p[0].lower() in SPLIT_NAMES for p in parts)
    labelled = any(len(p) > split for p in parts)
    columns = [ITEM, *([LABEL] if labelled else []), *([SPLIT] if split else [])]

    def read(_: str | None, __: Sequence[str]) -> Iterator[Record | BadRecord]:
        for number, (path, own) in enumerate(zip(found.paths, parts, strict=True), 1):
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


def split_tables(root: Path, modality: str) -> Table | None:
    """A folder whose files are splits, such as train.csv and test.csv; None if it is no such."""
    found: dict[str, list[Table]] = {}
    for folder in (root, root / "data"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            matched = TABLE_FILE.fullmatch(path.name)
            if matched:
                found.setdefault(matched[1].lower(), []).append(file_table(str(path), modality))
    if not found:
        return None
    return joined(found)


def joined(tables: Mapping[str, Sequence[Table]]) -> Table:
    """Tables of one form as one, with the split of each as a column."""
    all_of_them = [(split, table) for split, own in tables.items() for table in own]
    first = all_of_them[0][1]
    columns = [c for c in first.columns if all(c in t.columns for _, t in all_of_them)]

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        for split, table in all_of_them:
            for record in table.read(column, [name for name in keep if name != SPLIT]):
                if isinstance(record, BadRecord):
                    yield record._replace(reason=f"of {split}: {record.reason}")
                else:
                    place = f"{split} {record.number}"
                    yield record._replace(kept={**record.kept, SPLIT: split, PLACE: place})

    known = [c for _, t in all_of_them for c in t.choices]
    return Table(
        [*(c for c in columns if c != SPLIT), SPLIT],
        read,
        first.modality,
        first.base,
        first.names,
        known,
    )


def arrow_table(root: Path, modality: str) -> Table | None:
    """A data set that Hugging Face's ``save_to_disk`` wrote; None if a folder is no such."""
    if (root / "dataset_dict.json").is_file():
        splits = _json(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise DataError(f"{shown(str(root))} names no splits in its dataset_dict.json")
        folders = {str(name): root / Path(str(name)).name for name in splits}
        return joined({name: [_arrow_split(path, modality)] for name, path in folders.items()})
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
    names = {
        column: list(feature.get("names") or ())
        for column, feature in (features if isinstance(features, dict) else {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }

    def read(column: str | None, keep: Sequence[str]) -> Iterator[Record | BadRecord]:
        return arrow_records(files, column or columns[0], keep)

    columns = arrow_columns(files[0])
    return Table(columns, read, modality, root, names)


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
    """The records of a table; an error where there is none."""
    records = table.read(column, keep)
    for first in records:
        return chain([first], records)
    raise DataError("the data set is empty")
