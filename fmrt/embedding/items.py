"""What a user passes to be embedded, as a plain iterable of items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, cast

from fmrt.errors import InputError, quoted

# Methods of pyarrow, pandas and polars, none of which is imported: all values as Python's own.
AS_LIST = ("to_pylist", "to_list")
TABLES = ("columns", "column_names")


def items_of(items: object) -> Iterable[Any]:
    """The items in their order, from any iterable, NumPy array, or column of a table.

    A set is refused: it has no order, and rows could not be told apart.

    Raises:
        InputError: One item alone, a mapping, a table, a set, or nothing to iterate over.
    """
    if isinstance(items, list | tuple):
        return items
    if isinstance(items, str | bytes | bytearray | memoryview | os.PathLike):
        raise InputError(f"one item was passed, {quoted(items)}; pass a list of items, e.g. [item]")
    kind = type(items).__name__
    if isinstance(items, set | frozenset):
        raise InputError(f"a {kind} has no order for the rows of a result; pass sorted(items)")
    if isinstance(items, Mapping):
        raise InputError(f"a {kind} was passed; pass a list, e.g. list(items.values())")
    if any(hasattr(items, name) for name in TABLES):
        raise InputError(f"a table was passed, {kind}; pass one of its columns, e.g. table['text']")
    for name in AS_LIST:
        convert = getattr(items, name, None)
        if callable(convert):
            return cast("Iterable[Any]", convert())
    try:
        iter(items)  # type: ignore[call-overload]  # that is the question
    except TypeError:
        raise InputError(f"expected a list of items, got {kind}: {quoted(items)}") from None
    return cast("Iterable[Any]", items)
