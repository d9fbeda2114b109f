"""Arrow arrays of JSON-like values, of which nothing is dropped or changed to fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmrt.data._pyarrow import pyarrow

if TYPE_CHECKING:
    import pyarrow as pa


def array_of(values: Sequence[object], kind: pa.DataType | None) -> pa.Array:
    """Return ``values`` as an array of ``kind``, or of the type inferred from them if None.

    Raises:
        ValueError, TypeError, OverflowError, ArrowException: If a value does not fit.
    """
    arrow = pyarrow()
    if kind is None:
        inferred = arrow.array(values)
        settled = _settled(inferred.type)
        return inferred if settled == inferred.type else arrow.array(values, type=settled)
    for value in values:
        if not _fits(value, kind):
            raise ValueError(f"{value!r:.40} is not of type {kind}")
    return arrow.array(values, type=kind)


def _settled(kind: pa.DataType) -> pa.DataType:
    """Return ``kind`` with string for null, which no later value would fit."""
    arrow = pyarrow()
    if arrow.types.is_null(kind):
        return arrow.string()
    if arrow.types.is_list(kind):
        return arrow.list_(_settled(kind.value_type))
    if arrow.types.is_struct(kind):
        return arrow.struct([(field.name, _settled(field.type)) for field in kind])
    return kind


def _fits(value: object, kind: pa.DataType) -> bool:
    """Return False for a value that pyarrow would alter: cut, wrap, or strip of keys."""
    types = pyarrow().types
    if isinstance(value, dict):
        fields = {field.name: field.type for field in kind} if types.is_struct(kind) else {}
        return all(key in fields and _fits(item, fields[key]) for key, item in value.items())
    if isinstance(value, list):
        return types.is_list(kind) and all(_fits(item, kind.value_type) for item in value)
    altered = {str: types.is_nested, bool: types.is_floating, float: types.is_integer}
    return not altered.get(type(value), types.is_null)(kind)
