"""All that the bytes of a job's shards depend on, and what to say when some of it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmrt.errors import DataError


@dataclass(frozen=True)
class Setting:
    """One thing that the shards depend on.

    Attributes:
        key: The key in the journal.
        name: The name, as messages call it, e.g. ``--precision``.
        value: The value now, as JSON. None where nothing was asked for.
        default: What None stands for in a new job.
        kept: Whether None stands for what a job has already.
        hidden: Whether the value says nothing to people.
    """

    key: str
    name: str
    value: Any
    default: Any = None
    kept: bool = False
    hidden: bool = False


def merged(
    folder: str, settings: Sequence[Setting], found: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The settings of a job, by key: new, or the one that goes on.

    Args:
        folder: The folder of the job, for messages.
        settings: The settings of this command.
        found: The settings of the job that is there, or None.

    Raises:
        DataError: The job that is there was started with other ones.
    """
    if found is None:
        return {s.key: s.default if s.value is None else s.value for s in settings}
    now = {s.key: _now(s, found) for s in settings}
    changed = [s for s in settings if now[s.key] != found.get(s.key)]
    if changed:
        differences = ", ".join(_difference(s, found.get(s.key), now[s.key]) for s in changed)
        raise DataError(
            f"the job in {folder!r} was started otherwise: {differences}; repeat what it was "
            "started with, or say --overwrite to start over"
        )
    return now


def _now(setting: Setting, found: Mapping[str, Any]) -> object:  # JSON
    if setting.value is not None:
        return setting.value
    return found.get(setting.key) if setting.kept else setting.default


def _difference(setting: Setting, before: object, now: object) -> str:
    if setting.hidden:
        return f"{setting.name} has changed"
    return f"{setting.name} was {_shown(before)} and is {_shown(now)}"


def _shown(value: object) -> str:
    return "not given" if value is None else repr(value)
