"""A path, a name or records -> a data set."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmrt.data import BadRecord, Record, modality_of
from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.beir import is_beir, load_beir
from fmrt.evaluation.bundled import BUNDLED, load_bundled
from fmrt.evaluation.columns import Columns, chosen
from fmrt.evaluation.dataset import FIRST, ITEMS, LABELLED, SECOND, Dataset, Side
from fmrt.evaluation.dataset import PAIRS as PAIRS_KIND
from fmrt.evaluation.reading import Reading
from fmrt.evaluation.tables import (
    ITEM,
    PLACE,
    SPLIT_NAMES,
    Table,
    all_records,
    arrow_table,
    file_table,
    folder_table,
    split_tables,
)

_MEDIA_COLUMNS = {"image": ("image", "img"), "audio": ("audio",)}


def load_dataset(
    source: object,
    modalities: Sequence[str],
    *,
    modality: str | None = None,
    columns: Columns | None = None,
    on_error: str = "fail",
) -> Dataset:
    """The data set of a path or a name.

    Args:
        source: a folder with a subfolder a class or with train and test; a csv, tsv, jsonl or
            parquet file, or a folder of such files by split; a folder in BEIR's layout; a folder
            that ``save_to_disk`` of Hugging Face's datasets wrote; ``digits`` or ``20newsgroups``
            of scikit-learn; or a `Dataset`, which stays as it is.
        modalities: that the model embeds.
        modality: of the items; default the model's only one, or what the data shows.
        columns: names of columns that the data does not show.
        on_error: ``fail`` at a record that cannot be used, or ``skip`` it and say so.

    Raises:
        DataError: there is no such data set, or nothing in it can be used.
        InputError: a record cannot be used, and ``on_error`` is ``fail``.
        OptionError: the model does not embed what the data set holds.
    """
    columns, reading = columns or Columns(), Reading(on_error)
    if isinstance(source, Dataset):
        data = source
    elif isinstance(source, str | os.PathLike):
        data = _of_path(os.fspath(source), modalities, modality, columns, reading)
    else:
        raise OptionError(f"data={quoted(source)}; give a path, a name or a Dataset")
    for side in data.sides.values():
        if side.modality not in modalities:
            raise OptionError(
                f"{data.name!r} holds items of modality {side.modality}, and the model embeds "
                f"{' and '.join(modalities)}"
            )
    return replace(data, notes=(*data.notes, *reading.notes()))


def _of_path(
    source: str,
    modalities: Sequence[str],
    modality: str | None,
    columns: Columns,
    reading: Reading,
) -> Dataset:
    path = Path(source)
    if not path.exists():
        if source in BUNDLED:
            return load_bundled(source)
        names = ", ".join(BUNDLED)
        raise DataError(f"there is no file or folder {source!r}; known by name are {names}")
    if is_beir(path):
        return load_beir(path, columns.split, reading)
    table = _table(path, modality or _modality(source, modalities))
    if modality is None and len(modalities) > 1 and path.is_file():
        shown = (
            m for m, c in _MEDIA_COLUMNS.items() if m in modalities and {*c} & {*table.columns}
        )
        table = _table(path, next(shown, table.modality))
    return from_table(source, table, columns, reading)


def _modality(source: str, modalities: Sequence[str]) -> str:
    if len(modalities) == 1:
        return modalities[0]
    return modality_of(source, modalities) or "text"


def _table(path: Path, modality: str) -> Table:
    if path.is_dir():
        found = arrow_table(path, modality) or split_tables(path, modality)
        return found or folder_table(path, modality)
    return file_table(str(path), modality)


def from_table(source: str, table: Table, asked: Columns, reading: Reading) -> Dataset:
    """The data set that a table's columns make."""
    use = chosen(source, table.columns, asked, table.modality)
    if ITEM in table.columns:
        said = []
    else:
        roles = (("items", use.column), ("labels", use.label), ("splits", use.split))
        pair = (("second items", use.second), ("scores", use.score))
        named = [f"{role} are of column {name!r}" for role, name in (*roles, *pair) if name]
        said = [f"{source}: {', '.join(named)}"]
    keep = [name for name in (use.label, use.split, use.second, use.score) if name is not None]
    records = reading.good(source, all_records(table, use.column, keep))
    builder = (
        _Pairs(source, table, use) if use.second is not None else _Labelled(source, table, use)
    )
    for record in records:
        problem = builder.add(record)
        if problem is not None:
            reading.bad(source, BadRecord(record.number, problem))
    data = builder.dataset()
    return replace(data, choices=(*table.choices, *said, *data.choices))


class _Rows:
    """Items with their split."""

    def __init__(self, source: str, table: Table, use: Columns) -> None:
        self.source, self.table, self.use = source, table, use
        self.items: list[object] = []
        self.places: list[str] = []
        self.splits: list[str | None] = []

    def add(self, record: Record) -> str | None:
        """Take a record, or say what is wrong with it."""
        split, problem = self._split(record)
        if problem is None:
            problem = self.take(record)
        if problem is None:
            self.items.append(self.item(record.value))
            place = record.kept.get(PLACE, f"record {record.number}")
            self.places.append(str(place))
            self.splits.append(split)
        return problem

    def take(self, record: Record) -> str | None:
        """Take what else a record holds, or say what is wrong with it."""
        raise NotImplementedError

    def item(self, value: object) -> object:
        """What to embed: a path is one to a file beside the table."""
        if self.table.modality != "text" and isinstance(value, str):
            return Path(value) if self.table.base is None else self.table.base / value
        return value

    def _split(self, record: Record) -> tuple[str | None, str | None]:
        if self.use.split is None:
            return None, None
        value = record.kept.get(self.use.split)
        names = self.table.names.get(self.use.split)
        if names is not None and isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        split = SPLIT_NAMES.get(str(value).strip().lower())
        if split is None:
            return None, f"split {value!r} is none of {', '.join(SPLIT_NAMES)}"
        return split, None

    def sides(self) -> dict[str, Side]:
        """What is embedded."""
        return {ITEMS: Side(self.items, self.places, self.table.modality)}

    def known(self) -> Dataset:
        """The data set without splits."""
        raise NotImplementedError

    def dataset(self) -> Dataset:
        """The data set, of its splits those that are used."""
        if not self.items:
            raise DataError(f"{self.source!r} has no record that can be used")
        there = {split for split in self.splits if split is not None}
        data = self.known()
        test = next((name for name in ("test", "validation") if name in there), None)
        if test is None or "train" not in there:
            only = f"{self.source}: all is of the split {next(iter(there))!r}" if there else ""
            return replace(data, choices=(only,) if only else ())
        used = {"train": "train", test: "test"}
        split = tuple(used.get(str(name), "") for name in self.splits)
        data = replace(data, split=split)
        gone = [i for i, name in enumerate(split) if not name]
        if gone:
            data, _ = data.without(dict.fromkeys(data.sides, gone))
            note = f"{self.source}: {len(gone):,} items of the split 'validation' are not used"
            data = replace(data, choices=(note,))
        return data


class _Labelled(_Rows):
    def __init__(self, source: str, table: Table, use: Columns) -> None:
        super().__init__(source, table, use)
        self.labels: list[str] = []

    def take(self, record: Record) -> str | None:
        if self.use.label is None:
            return None
        value = record.kept.get(self.use.label)
        names = self.table.names.get(self.use.label)
        if names is not None and isinstance(value, int):
            value = names[value] if 0 <= value < len(names) else None
        missing = isinstance(value, float) and math.isnan(value)
        if value is None or missing or (isinstance(value, str) and not value.strip()):
            where = f" in {str(record.kept[PLACE])!r}" if PLACE in record.kept else ""
            return f"it has no label{where}"
        if not isinstance(value, str | int | float):
            return f"its label is a {type(value).__name__}, and one label an item is taken"
        self.labels.append(str(value).strip())
        return None

    def known(self) -> Dataset:
        labels = tuple(self.labels) if self.use.label is not None else None
        return Dataset(self.source, LABELLED, self.sides(), labels)


class _Pairs(_Rows):
    def __init__(self, source: str, table: Table, use: Columns) -> None:
        super().__init__(source, table, use)
        self.seconds: list[object] = []
        self.scores: list[float] = []

    def take(self, record: Record) -> str | None:
        second = record.kept.get(str(self.use.second))
        if not isinstance(second, str):
            return f"{self.use.second!r} is {type(second).__name__}, not text"
        if self.use.score is not None:
            value = record.kept.get(self.use.score)
            try:
                score = float(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                score = math.nan
            if not math.isfinite(score):
                return f"its score {value!r} is no finite number"
            self.scores.append(score)
        self.seconds.append(self.item(second))
        return None

    def sides(self) -> dict[str, Side]:
        modality = self.table.modality
        return {
            FIRST: Side(self.items, self.places, modality),
            SECOND: Side(self.seconds, self.places, modality),
        }

    def known(self) -> Dataset:
        scores = np.array(self.scores) if self.use.score is not None else None
        return Dataset(self.source, PAIRS_KIND, self.sides(), scores=scores)
