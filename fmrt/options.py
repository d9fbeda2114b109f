"""Every option of the public API and the values that it takes, in one table.

The checks say what a value is, not whether a bundle can follow it: that a model has the prompt or
the dimensions is for those who know the model.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, SupportsIndex, cast

from fmrt.errors import OptionError, quoted

Check = Callable[[str, Any], Any]

# No provider in particular: what ``fmrt tune`` chose where that counts, and else the CPU.
UNNAMED = "default"
# More would only wait for each other; a machine has fewer cores.
MOST_THREADS = 1024
MOST_TOKENS = 2**31 - 1
MOST_BYTES = 2**63 - 1


def optional(check: Check) -> Check:
    """What ``check`` takes, or None."""
    return lambda name, value: None if value is None else check(name, value)


def whole(most: int) -> Check:
    """A whole number of 1 to ``most``; NumPy's too."""

    def check(name: str, value: object) -> int:
        try:
            number = 0 if _is_flag(value) else operator.index(cast("SupportsIndex", value))
        except TypeError:
            number = 0
        if not 1 <= number <= most:
            raise OptionError(f"{name}={quoted(value)}; give a whole number from 1 to {most:,}")
        return number

    return check


def _is_flag(value: object) -> bool:
    """Whether a value is True or False; NumPy, whose flags are no `bool`, need not be imported."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def number(name: str, value: object) -> float:
    """A finite number."""
    # NumPy's scalars count as real numbers too, and its flags do not.
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise OptionError(f"{name}={quoted(value)}; give a number")
    return float(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not _is_flag(value):
        raise OptionError(f"{name}={quoted(value)}; give True or False")
    return bool(value)


def name_of(name: str, value: object) -> str:
    """A text that is not empty, as a name is."""
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name}={quoted(value)}; give a name, as text")
    return value


def hash_of(name: str, value: object) -> str:
    """A SHA-256 in hex."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise OptionError(f"{name}={quoted(value)}; give 64 digits 0-9 and a-f, see fmrt info")
    return value


def text(name: str, value: object) -> str:
    """Text that a tokenizer takes."""
    if not isinstance(value, str):
        raise OptionError(f"{name}={quoted(value)}; give text")
    problem = text_problem(value)
    if problem is not None:
        raise OptionError(f"{name}={quoted(value)}: {problem}")
    return value


def text_problem(value: str, start: int = 0) -> str | None:
    """What no model should see of a text, with its position; None when there is nothing.

    ``start`` is the number of characters that come before it.
    """
    if "\0" in value:
        return f"NUL character at position {start + value.index(chr(0))}; remove it"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            return f"lone surrogate (invalid UTF-8) at position {start + e.start}"
    return None


def file_path(name: str, value: object) -> str | Path:
    """A path, which is not empty."""
    if isinstance(value, str | os.PathLike):
        place = os.fspath(value)
        if isinstance(place, str) and place and "\0" not in place and _encodable(place):
            return value if isinstance(value, str | Path) else place
    raise OptionError(f"{name}={quoted(value)}; give a path")


def _encodable(place: str) -> bool:
    try:
        os.fsencode(place)
    except UnicodeEncodeError:
        return False
    return True


def character(name: str, value: object) -> str:
    """What may stand between fields of a table."""
    if not isinstance(value, str) or len(value) != 1 or value in '"\r\n\0':
        raise OptionError(f"{name}={quoted(value)}; give one character")
    return value


def listed(check: Check) -> Check:
    """A list of what ``check`` takes."""

    def each(name: str, value: object) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise OptionError(f"{name}={quoted(value)}; give a list")
        return [check(name, one) for one in value]

    return each


def function(name: str, value: object) -> object:
    """Something to call."""
    if not callable(value):
        raise OptionError(f"{name}={quoted(value)}; give a function")
    return value


OPTIONS: Mapping[str, Check] = {
    # of loading
    "variant": optional(name_of),
    "provider": text,  # an empty one is answered with those that there are
    "revision": optional(name_of),
    "sha256": optional(hash_of),
    "workers": optional(whole(MOST_THREADS)),
    "intra_op_threads": optional(whole(MOST_THREADS)),
    "threads": optional(whole(MOST_THREADS)),
    "verify": flag,
    "gpu_mem_limit": optional(whole(MOST_BYTES)),
    "cuda_graphs": optional(flag),
    "low_memory": flag,
    "max_item_bytes": whole(MOST_BYTES),
    "cache": optional(file_path),
    "modality": optional(name_of),
    "prompt_name": optional(name_of),
    "prompt": optional(text),
    # of streams
    "raw_of": function,
    "on_error": optional(function),
    "group_of": optional(function),
    "held_bytes": optional(function),
    # of jobs and of search
    "warn": optional(function),
    "shard_rows": optional(whole(MOST_TOKENS)),
    "shard_format": optional(name_of),
    "k": whole(MOST_TOKENS),
    "texts": optional(file_path),
    "check_provenance": flag,
    # of reading
    "format": optional(name_of),
    "column": optional(text),
    "delimiter": optional(character),
    "header": flag,
    # of the exporter
    "output": name_of,
    "pooling": optional(name_of),
    "normalize": optional(flag),
    "max_length": optional(whole(MOST_TOKENS)),
    "opset": optional(whole(MOST_TOKENS)),
    "device": name_of,
    "exporter": optional(name_of),
    "cuda": flag,
    "trust_remote_code": flag,
    "overwrite": flag,
    "record_reference": flag,
    "min_cosine": number,
    "quality": optional(number),
    "tolerance": number,
    "judge": optional(function),
    "calibration": optional(file_path),
    "report": optional(function),
    # of packages
    "single_file": flag,
    "compress": flag,
    "all_tokens": flag,
    "ort": flag,
    "vocabulary": optional(file_path),
    # of evaluations
    "tasks": optional(listed(name_of)),
    "against": optional(file_path),
    "variants": optional(listed(optional(name_of))),
    # of the hub
    "private": flag,
    "message": optional(text),
}


def checked(**values: Any) -> list[Any]:
    """The values of options, in their order; NumPy's numbers as Python's.

    Raises:
        OptionError: One has a wrong type or is out of range; it is named and quoted.
    """
    return [OPTIONS[name](name, value) for name, value in values.items()]
