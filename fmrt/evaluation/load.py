"""Make a data set from a path, a name or records."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmrt.bundle.bundle import is_hub_id
from fmrt.data import BadRecord, Record, modality_of
from fmrt.errors import DataError, OptionError, quoted
from fmrt.evaluation.beir import is_retrieval, load_retrieval, retrieval_parts
from fmrt.evaluation.bundled import BUNDLED, load_bundled
from fmrt.evaluation.columns import Columns, chosen
from fmrt.evaluation.dataset import FIRST, ITEMS, LABELLED, SECOND, Dataset, Side
from fmrt.evaluation.dataset import PAIRS as PAIRS_KIND
from fmrt.evaluation.hub_data import card_of, hub_folder
from fmrt.evaluation.layout import (
    CARD,
    SPLIT_NAMES,
    Config,
    chosen_config,
    configs_of,
    is_program,
    used_splits,
)
from fmrt.evaluation.reading import Reading
from fmrt.evaluation.segments import is_segments, load_segments
from fmrt.evaluation.tables import (
    ITEM,
    PLACE,
    Table,
    all_records,
    arrow_table,
    file_table,
    folder_table,
    repository_table,
)

_MEDIA_COLUMNS = {"image": ("image", "img"), "audio": ("audio",)}


@dataclass(frozen=True)
class Asked:
    """The choices of a user about a data set, apart from its place.

    Attributes:
        modalities: The modalities that the model embeds.
        modality: The items' modality; None for the model's only one, or the one that the data
            shows.
        columns: The names of columns that the data does not show.
        config: The configuration, of a data set with several.
        revision: The revision of a data set on the hub; None for the newest one.
    """

    modalities: Sequence[str]
    modality: str | None = None
    columns: Columns = field(default_factory=Columns)
    config: str | None = None
    revision: str | None = None


def load_dataset(
    source: object,
    modalities: Sequence[str],
    *,
    modality: str | None = None,
    columns: Columns | None = None,
    on_error: str = "fail",
    config: str | None = None,
    data_revision: str | None = None,
) -> Dataset:
    """The data set of a path or a name.

    Args:
        source: A folder with one subfolder per class or with train and test; a csv, tsv, jsonl or
            parquet file, or a folder of such files by split; a folder in BEIR's layout; a folder
            that ``save_to_disk`` of Hugging Face's datasets wrote, or that a data set of the hub
            was downloaded to; ``owner/name`` of one on the hub; ``digits`` or ``20newsgroups`` of
            scikit-learn; or a `Dataset`, which stays as it is.
        modalities: The modalities that the model embeds.
        modality: The items' modality; default the model's only one, or the one that the data shows.
        columns: The names of columns that the data does not show.
        on_error: ``fail`` stops at a record that cannot be used; ``skip`` leaves it out and says
            so.
        config: The configuration, of a data set on the hub with several.
        data_revision: The branch, tag or commit of a data set on the hub.

    Raises:
        DataError: There is no such data set, or nothing in it can be used.
        InputError: A record cannot be used, and ``on_error`` is ``fail``.
        OptionError: The model does not embed what the data set holds.
    """
    reading = Reading(on_error)
    asked = Asked(modalities, modality, columns or Columns(), config, data_revision)
    if isinstance(source, Dataset):
        data = source
    elif isinstance(source, str | os.PathLike):
        data = _of_source(os.fspath(source), asked, reading)
    else:
        raise OptionError(f"data={quoted(source)}; give a path, a name or a Dataset")
    for side in data.sides.values():
        if side.modality not in modalities:
            raise OptionError(
                f"{data.name!r} holds items of modality {side.modality}, and the model embeds "
                f"{' and '.join(modalities)}"
            )
    return replace(data, notes=(*data.notes, *reading.notes()))


def _of_source(source: str, asked: Asked, reading: Reading) -> Dataset:
    path = Path(source)
    if path.exists():
        return _of_path(source, path, asked, reading)
    if source in BUNDLED:
        return load_bundled(source)
    if not is_hub_id(source):
        names = ", ".join(BUNDLED)
        raise DataError(
            f"there is no file or folder {source!r}; known by name are {names}, and OWNER/NAME on "
            "the hub"
        )
    split = asked.columns.split

    def wanted(files: Sequence[str], card: Mapping[str, Any]) -> Sequence[str] | None:
        configs = configs_of(files, card)
        if is_program(files):
            raise DataError(
                f"{source!r} is a program that makes its data, which is not run; the hub may have "
                "made files of it: --data-revision refs/convert/parquet"
            )
        if not configs:
            return None
        if is_retrieval(configs):
            return [f for c in configs.values() for own in c.splits.values() for f in own]
        splits = chosen_config(source, configs, asked.config).splits
        used, _ = used_splits(source, list(splits), split)
        return [file for name in used for file in splits[name]]

    root, commit = hub_folder(source, asked.revision, wanted)
    data = _of_path(source, root, asked, reading)
    return replace(data, choices=(f"{source}: at {commit} on the hub", *data.choices))


def _of_path(source: str, path: Path, asked: Asked, reading: Reading) -> Dataset:
    configs: Mapping[str, Config] = {}
    if path.is_dir():
        files = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
        configs = configs_of(files, card_of(path / CARD))
    parts = retrieval_parts(path, configs)
    if parts is not None:
        return load_retrieval(source, parts, asked.columns.split, reading)
    if is_segments(path) and "image" in asked.modalities:
        return load_segments(source, path, reading)
    modality = asked.modality or _modality(str(path), asked.modalities)
    table = _table(source, path, modality, configs, asked)
    if asked.modality is None and len(asked.modalities) > 1:
        kinds = {*table.kinds.values()} | {
            m for m, names in _MEDIA_COLUMNS.items() if {*names} & {*table.columns}
        }
        shown = next((m for m in asked.modalities if m in kinds), table.modality)
        if shown != table.modality:
            table = _table(source, path, shown, configs, asked)
    return from_table(source, table, asked.columns, reading)


def _modality(source: str, modalities: Sequence[str]) -> str:
    if len(modalities) == 1:
        return modalities[0]
    return modality_of(source, modalities) or "text"


def _table(
    source: str, path: Path, modality: str, configs: Mapping[str, Config], asked: Asked
) -> Table:
    if not path.is_dir():
        return file_table(str(path), modality)
    split = asked.columns.split
    arrow = arrow_table(source, path, modality, split)
    if arrow is not None:
        return arrow
    if configs or asked.config is not None:
        config = chosen_config(source, configs, asked.config)
        return repository_table(source, path, config, modality, split)
    return folder_table(path, modality)


def from_table(source: str, table: Table, asked: Columns, reading: Reading) -> Dataset:
    """The data set that a table's columns make."""
    if asked.split is not None and asked.split == table.alone:
        asked = replace(asked, split=None)
    stated = [name for name, kind in table.kinds.items() if kind == table.modality]
    use = chosen(source, table.columns, asked, table.modality, stated, list(table.names))
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
    """The items of a table with their splits."""

    def __init__(self, source: str, table: Table, use: Columns) -> None:
        self.source, self.table, self.use = source, table, use
        self.items: list[object] = []
        self.places: list[str] = []
        self.splits: list[str | None] = []

    def add(self, record: Record) -> str | None:
        """Take a record, or say what is wrong with it."""
        split, problem = self._split(record)
        if problem is None and self.table.modality != "text" and record.value == "":
            problem = "it names no file"
        if problem is None:
            problem = self.take(record)
        if problem is None:
            self.items.append(self.item(record.value))
            place = record.kept.get(PLACE, f"record {record.number}")
            self.places.append(str(place))
            self.splits.append(split)
        return problem

    def take(self, record: Record) -> str | None:
        """Take the other values of a record, or say what is wrong with it."""
        raise NotImplementedError

    def item(self, value: object) -> object:
        """The item to embed. A path leads to a file next to the table."""
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
        """The sides that are embedded."""
        return {ITEMS: Side(self.items, self.places, self.table.modality)}

    def known(self) -> Dataset:
        """The data set without splits."""
        raise NotImplementedError

    def dataset(self) -> Dataset:
        """The data set with those of its splits that are used."""
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
