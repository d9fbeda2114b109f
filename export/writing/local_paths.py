"""Takes paths of the machine that exports out of a bundle: they help nobody, and name its user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Where a library loaded from, and how, which is nothing of the model's.
LOADING = frozenset(
    {"_name_or_path", "name_or_path", "local_files_only", "is_local", "cache_dir", "_commit_hash"}
)
# These hold what a user wrote, or tokens.
OTHERS = frozenset({"tokenizer.json", "vocab.json", "config_sentence_transformers.json"})
PATH_KEY = re.compile(r"path|file|dir|folder|root", re.IGNORECASE)
ABSOLUTE = re.compile(r"(?:/|~/|[A-Za-z]:[\\/]|\\\\)\S")


def remove_local_paths(directory: Path) -> None:
    """Remove from a bundle's JSON configuration files what says where the model was loaded from."""
    for path in directory.rglob("*.json"):
        if path.name not in OTHERS:
            stated = json.loads(path.read_text(encoding="utf-8"))
            cleaned = _cleaned(stated)
            if cleaned != stated:
                text = json.dumps(cleaned, indent=2, ensure_ascii=False)
                path.write_text(text + "\n", encoding="utf-8")


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return dict(_kept(value))
    return [_cleaned(v) for v in value] if isinstance(value, list) else value


def _kept(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        local = isinstance(value, str) and ABSOLUTE.match(value) and PATH_KEY.search(key)
        if key not in LOADING and not local:
            yield key, _cleaned(value)
