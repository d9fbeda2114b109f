"""Records of a parquet file, streamed in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmrt.data._columns import LINE, Columns, pick
from fmrt.data._pyarrow import pyarrow, reading_parquet
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import STDIN, one_line, peeked, shown
from fmrt.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_BATCH_ROWS = 1024
# Makes pyarrow stream the pages of a row group, which may be gigabytes, not load it whole.
_BUFFER_BYTES = 1 << 20
_BYTES = "bytes"
_BINARY_TYPES = {"binary", "large_binary", "binary_view"}
_TEXT_TYPES = {"string", "large_string", "string_view"}


@dataclass(frozen=True)
class _Unreadable:
    """Stands for a value that has no Python equivalent."""

    reason: str


def read_parquet(
    source: str, column: str | None, keep: Sequence[str]
) -> Iterator[Record | BadRecord]:
    """Return the records of ``source``, numbered by row; reads only the columns in use."""
    if source == STDIN:
        raise DataError("parquet cannot be read from standard input; give a file")
    with reading_parquet(source):
        file = pyarrow().parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES)
    types = {field.name: field.type for field in file.schema_arrow}
    columns = pick(source, {name: _is_text(kind) for name, kind in types.items()}, column, keep)
    found = types[columns.value]
    if not _is_text(found) and not _holds_bytes(found):
        raise DataError(
            f"column {columns.value!r} of {shown(source)} is {found}, not string or binary"
        )
    return peeked(source, _records(source, file, columns))


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pyarrow().types.is_dictionary(kind) else kind
    return str(values) in _TEXT_TYPES


def _holds_bytes(kind: pa.DataType) -> bool:
    """Binary, or the struct of bytes and path that Hugging Face data sets keep files in."""
    if pyarrow().types.is_struct(kind):
        return any(field.name == _BYTES and _holds_bytes(field.type) for field in kind)
    return str(kind) in _BINARY_TYPES


def _records(
    source: str, file: parquet.ParquetFile, columns: Columns
) -> Iterator[Record | BadRecord]:
    names = {columns.value, *columns.keep} - ({LINE} if columns.numbered else set())
    done = 0
    with reading_parquet(source), file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(names)):
            values = {name: _values(batch.column(name)) for name in names}
            for row in zip(*values.values(), strict=True):
                done += 1
                yield _record(done, dict(zip(values, row, strict=True)), columns)


def _record(number: int, row: dict[str, object], columns: Columns) -> Record | BadRecord:
    for name, value in row.items():
        if isinstance(value, _Unreadable):
            return BadRecord(number, f"{name!r} is {value.reason}")
    value = row.get(columns.value)
    if isinstance(value, dict):
        row = {**row, columns.value: value.get(_BYTES) or value.get("path")}
    return columns.record(number, row)


def _values(array: pa.Array) -> list[object]:
    """Return the values of ``array``; one bad value does not spoil the others."""
    try:
        return list(array.to_pylist())
    except ValueError:
        return [_value(scalar) for scalar in array]


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _Unreadable("not valid UTF-8")
    except ValueError as e:
        return _Unreadable(f"not readable: {one_line(e)}")
