"""The splits of the files of a repository of data, as the Hugging Face hub lays them out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from fmrt.errors import DataError
from fmrt.words import listed

CARD = "README.md"
DEFAULT_CONFIG = "default"
# The meaning of names of splits. A model learns from the first kind, and is tested on the second.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
# Files of records, and the other files of a repository.
_DATA = re.compile(r"\.(parquet|pq|csv|tsv|jsonl|ndjson|json)(\.gz)?$", re.I)
_ABOUT = re.compile(r"(readme|licen[cs]e|citation|changelog)(\.\w+)?|.*\.(py|yaml|yml)", re.I)
_NO_DATA = re.compile(r"(dataset_infos?|dataset_dict|state)\.json", re.I)
_CONVERTED = re.compile(r"([^/]+)/(?:partial-)?([^/]+)/\d{4}\.parquet")
_WORD = re.compile(rf"(?:^|[^a-z0-9])({'|'.join(SPLIT_NAMES)})(?=[^a-z0-9]|$)")


@dataclass(frozen=True)
class Config:
    """One configuration of a repository of data.

    Attributes:
        splits: The names of files by split; the split is "" where nothing says which it is.
        classes: The names of the classes that a column's numbers stand for, by column.
    """

    splits: Mapping[str, Sequence[str]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def configs_of(files: Sequence[str], card: Mapping[str, Any]) -> dict[str, Config]:
    """The configurations of a repository.

    Args:
        files: The names of all of its files, with ``/`` between folders.
        card: The metadata of its README.

    Returns:
        The configurations by name. There is none where the files are not tables by split. Unless
        the card or the names of files say which split they are, all files must be tables.
    """
    plain = [f for f in files if not any(p.startswith(".") for p in PurePosixPath(f).parts)]
    data = [f for f in plain if _DATA.search(f) and not _NO_DATA.fullmatch(PurePosixPath(f).name)]
    stated = {
        str(one.get("config_name", DEFAULT_CONFIG)): _stated(one, data)
        for one in card.get("configs") or ()
        if isinstance(one, dict) and one.get("data_files")
    }
    found = {name: splits for name, splits in stated.items() if splits} or _converted(data)
    if not found and data:
        splits = _by_name(data)
        if set(splits) != {""} or _are_tables(data, plain):
            found = {DEFAULT_CONFIG: splits}
    return {name: Config(splits, _classes(card, name)) for name, splits in found.items()}


def _converted(data: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The files by configuration and split, in the branch that the hub makes of other formats."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in data:
        matched = _CONVERTED.fullmatch(file)
        if matched is None:
            return {}
        found.setdefault(matched[1], {}).setdefault(matched[2], []).append(file)
    return found


def is_program(files: Sequence[str]) -> bool:
    """Whether a repository holds a program that makes its data, and nothing of the data."""
    names = [PurePosixPath(f).name for f in files]
    about = [n for n in names if n.startswith(".") or _ABOUT.fullmatch(n) or _NO_DATA.fullmatch(n)]
    return len(about) == len(names) and any(n.endswith(".py") for n in names)


def _are_tables(data: Sequence[str], files: Sequence[str]) -> bool:
    """Whether the files are only records, or describe the files next to them."""
    names = {f: PurePosixPath(f) for f in files}
    listing = all(names[f].stem == "metadata" for f in data)
    return listing or all(_ABOUT.fullmatch(names[f].name) for f in files if f not in data)


def chosen_config(source: str, configs: Mapping[str, Config], asked: str | None) -> Config:
    """The configuration that is asked for, the only one, or the default one.

    Raises:
        DataError: There is no such configuration, or none was asked for and there are several.
    """
    if asked is not None:
        if asked not in configs:
            raise DataError(f"{source!r} has no configuration {asked!r}; it has {listed(configs)}")
        return configs[asked]
    if len(configs) == 1:
        return next(iter(configs.values()))
    if DEFAULT_CONFIG in configs:
        return configs[DEFAULT_CONFIG]
    raise DataError(f"{source!r} has the configurations {listed(configs)}; name one with --config")


def used_splits(
    source: str, splits: Sequence[str], asked: str | None
) -> tuple[list[str], list[str]]:
    """The splits to read, and a line for those that are left out.

    Args:
        source: The folder's name in messages.
        splits: The names of the splits that exist.
        asked: The name of a split to read alone; any other name is that of a column.

    Raises:
        DataError: No split has a known name, such as ``train`` or ``test``, and there are several.
    """
    if asked in splits:
        return [str(asked)], []
    known = [name for name in splits if name.lower() in SPLIT_NAMES]
    rest = [name for name in splits if name not in known]
    if not known and len(rest) > 1:
        raise DataError(f"{source!r} has the splits {listed(rest)}; name one with --split")
    if not known:
        return rest, []
    return known, [f"{source}: without the splits {listed(rest)}"] if rest else []


def _stated(config: Mapping[str, Any], data: Sequence[str]) -> dict[str, list[str]]:
    """The files by split, as a card states them: a pattern, patterns, or these by split."""
    stated, folder = config["data_files"], str(config.get("data_dir") or "")
    if isinstance(stated, dict):
        entries = [{"split": split, "path": path} for split, path in stated.items()]
    else:
        entries = [
            e if isinstance(e, dict) else {"split": "", "path": e}
            for e in (stated if isinstance(stated, list) else [stated])
        ]
    found: dict[str, list[str]] = {}
    for entry in entries:
        paths = entry.get("path")
        for path in paths if isinstance(paths, list) else [paths]:
            pattern = _pattern(str(PurePosixPath(folder) / str(path)))
            own = found.setdefault(str(entry.get("split") or ""), [])
            own += [f for f in data if pattern.fullmatch(f) and f not in own]
    if set(found) == {""}:
        found = _by_name(found[""])
    return {split: own for split, own in found.items() if own}


def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(p, re.escape(p)) for p in parts))


def _by_name(data: Sequence[str]) -> dict[str, list[str]]:
    """The files by the split that their name states, or that of a folder that they are in."""
    found: dict[str, list[str]] = {}
    for file in sorted(data):
        words = [_WORD.search(part.lower()) for part in reversed(PurePosixPath(file).parts)]
        split = next((SPLIT_NAMES[w[1]] for w in words if w), "")
        found.setdefault(split, []).append(file)
    if len(found) > 1:
        found.pop("", None)
    return found


def _classes(card: Mapping[str, Any], config: str) -> dict[str, Sequence[str]]:
    """The names of classes by column, as a card states them."""
    stated = card.get("dataset_info") or ()
    found: dict[str, Sequence[str]] = {}
    for info in stated if isinstance(stated, list) else [stated]:
        if not isinstance(info, dict) or info.get("config_name", config) != config:
            continue
        for feature in info.get("features") or ():
            kind = feature.get("dtype") if isinstance(feature, dict) else None
            names = (kind.get("class_label") or {}).get("names") if isinstance(kind, dict) else None
            if isinstance(names, dict):
                names = [names[key] for key in sorted(names, key=int)]
            if names:
                found[str(feature.get("name"))] = [str(name) for name in names]
    return found
