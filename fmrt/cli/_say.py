"""What a command tells people, unless they asked for quiet; and results for programs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


def tell(args: argparse.Namespace, line: str) -> None:
    """Say on standard error what was done; warnings and errors are said elsewhere, and always."""
    if not args.quiet:
        print(line, file=sys.stderr)


def warn(line: str) -> None:
    """Say a warning or an error on standard error."""
    print(f"fmrt: {line}", file=sys.stderr)


def show(args: argparse.Namespace, text: str) -> None:
    """Print a result for people."""
    if not args.quiet:
        print(text, flush=True)


def reporter(args: argparse.Namespace) -> Callable[[str], None] | None:
    """What takes lines about a long work that is being done."""
    return None if args.quiet else partial(print, flush=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print a result for programs: one JSON object, numbers unrounded, null for what is none."""
    print(as_json(value), flush=True)


def as_json(value: Mapping[str, Any]) -> str:
    """The same as text."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
