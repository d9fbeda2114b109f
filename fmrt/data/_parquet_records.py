"""Records of a parquet file, streamed in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmrt.data._columns import LINE, TEXT, Columns, Wanted, lookup, pick
from fmrt.data._parquet_pages import PageSizes
from fmrt.data._pyarrow import pyarrow, reading_parquet
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import SPLIT, peeked
from fmrt.errors import DataError
from fmrt.system.limits import Limits, megabytes
from fmrt.words import STDIN, listed, one_line, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_BATCH_ROWS = 1024
# Makes pyarrow stream the pages of a row group, which may be gigabytes, not load it whole.
_BUFFER_BYTES = 1 << 20
# The bytes of a batch of values, which are in memory twice: in Arrow, and in Python.
_BATCH_BYTES = 1 << 25
# Values of a dictionary are read at once with those between them, if these are so many for each.
_MOST_BETWEEN = 8
# What pyarrow raises at a value that Python has not: a date, a time zone, bytes that are no text.
_NO_VALUE = (ArithmeticError, LookupError, ValueError)
_BYTES = "bytes"
_BINARY_TYPES = {"binary", "large_binary", "binary_view"}
TEXT_TYPES = {"string", "large_string", "string_view"}


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that has no Python equivalent."""

    reason: str


def read_parquet(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the records of ``source``, numbered by row; reads only the columns in use."""
    if source == STDIN:
        raise DataError("parquet cannot be read from standard input; give a file")
    with reading_parquet(source):
        file = pyarrow().parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES)
    schema = file.schema_arrow
    types = {field.name: _stored(field.type) for field in schema}
    inner = {name: kind for top, own in types.items() for name, kind in _inside(top, own)}
    columns = pick(source, {n: _is_text(k) for n, k in types.items()}, wanted, inner)
    found = types.get(columns.value, inner.get(columns.value))
    if not _is_text(found) and not _holds_bytes(found):
        more = [name for name in inner if name.startswith(f"{columns.value}.")]
        raise DataError(
            f"column {columns.value!r} of {shown(source)} is {found}, not string or binary"
            + (f"; in it are {listed(more)}" if more else "")
        )
    for name in {columns.value, *columns.keep}:
        top = name if name in types else name.partition(".")[0]
        if schema.names.count(top) > 1:
            raise DataError(f"{shown(source)} has more than one column {top!r}; rename them")
    names = {columns.value, *columns.keep} - ({LINE} if columns.numbered else set())
    # As a dictionary, a text that stands in a million rows is in memory once.
    shared = [name for name in names if str(types.get(name)) in TEXT_TYPES | _BINARY_TYPES]
    with reading_parquet(source), file:
        file = pyarrow().parquet.ParquetFile(
            source, buffer_size=_BUFFER_BYTES, read_dictionary=shared
        )
    decode = wanted.modality == TEXT and not _is_text(found)
    return peeked(source, _records(source, file, columns, names, shared, decode, wanted.limits))


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type that an extension type, such as JSON's, is stored as."""
    return getattr(kind, "storage_type", kind)


def _inside(top: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Names and types of the fields of a struct, and of those in them."""
    if pyarrow().types.is_struct(kind):
        for field in kind:
            yield f"{top}.{field.name}", _stored(field.type)
            yield from _inside(f"{top}.{field.name}", _stored(field.type))


def _is_text(kind: pa.DataType) -> bool:
    return str(_of_values(kind)) in TEXT_TYPES


def _holds_bytes(kind: pa.DataType) -> bool:
    """Binary, or the struct of bytes and path that Hugging Face data sets keep files in."""
    if pyarrow().types.is_struct(kind):
        return any(field.name == _BYTES and _holds_bytes(field.type) for field in kind)
    return str(_of_values(kind)) in _BINARY_TYPES


def _of_values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pyarrow().types.is_dictionary(kind) else kind


def _records(
    source: str,
    file: parquet.ParquetFile,
    columns: Columns,
    names: set[str],
    shared: list[str],
    decode: bool,
    limits: Limits,
) -> Iterator[Record | BadRecord]:
    own = set(file.schema_arrow.names)
    # Only the fields of a struct that are in use are read.
    tops = {name if name in own else name.partition(".")[0] for name in names}
    done, most = 0, limits.line_bytes
    with reading_parquet(source), file:
        sizes = PageSizes(source, file, names, limits)
        for group in range(file.num_row_groups):
            largest = sizes.largest_value(group, shared, _BATCH_BYTES)
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))
            for batch in file.iter_batches(rows, row_groups=[group], columns=sorted(names)):
                values = {name: values_of(batch.column(name)) for name in tops}
                readable = not any(
                    Unreadable in set(map(type, column)) for column in values.values()
                )
                for fields in zip(*values.values(), strict=True):
                    done += 1
                    row = dict(zip(values, fields, strict=True))
                    value = row.get(columns.value)
                    if readable and type(value) is str and len(value) <= most:  # nearly every one
                        yield columns.record(done, row)
                    else:
                        yield _checked(_record(done, row, columns, decode), columns.value, limits)


def _checked(record: Record | BadRecord, name: str, limits: Limits) -> Record | BadRecord:
    """The record, unless its text is longer than a line may be."""
    value = None if isinstance(record, BadRecord) else record.value
    if isinstance(value, str) and len(value) > limits.line_bytes:
        most = megabytes(limits.line_bytes)
        return BadRecord(record.number, f"{name!r} has over {most}; {SPLIT}")
    return record


def _record(
    number: int, row: dict[str, object], columns: Columns, decode: bool
) -> Record | BadRecord:
    for name, value in row.items():
        if isinstance(value, Unreadable):
            return BadRecord(number, f"{name!r} is {value.reason}")
    record = columns.record(number, _with_file(row, columns.value))
    if decode and isinstance(record, Record) and isinstance(record.value, bytes):
        try:
            return record._replace(value=record.value.decode())
        except UnicodeDecodeError:
            return BadRecord(number, f"{columns.value!r} is not valid UTF-8")
    return record


def _with_file(row: dict[str, object], name: str) -> dict[str, object]:
    """The row with bytes or a path instead of a struct of both."""
    try:
        value = lookup(row, name)
    except KeyError:  # in a struct that is null
        return {**row, name: None}
    if isinstance(value, dict):
        return {**row, name: value.get(_BYTES) or value.get("path")}
    return row


def values_of(array: pa.Array) -> list[object]:
    """Return the values of ``array``; one bad value does not spoil the others."""
    if pyarrow().types.is_dictionary(array.type):
        places = array.indices.to_pylist()
        found = _looked_up(array.dictionary, set(places) - {None})
        return [None if place is None else found[place] for place in places]
    try:
        return list(array.to_pylist())
    except _NO_VALUE:
        return [_value(scalar) for scalar in array]


def _looked_up(dictionary: pa.Array, places: set[int]) -> dict[int, object]:
    """Some values of a dictionary, by their places."""
    found: dict[int, object] = {}
    inside = sorted(place for place in places if 0 <= place < len(dictionary))
    part = dictionary[inside[0] : inside[-1] + 1] if inside else dictionary[:0]
    if len(part) <= _MOST_BETWEEN * len(inside) and part.nbytes <= _BATCH_BYTES:
        found.update(enumerate(values_of(part), inside[0] if inside else 0))
    else:
        # Not by take, for which pyarrow would import all that computes.
        found.update((place, _value(dictionary[place])) for place in inside)
    for place in places - found.keys():
        found[place] = Unreadable("beyond its column's dictionary")
    return found


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Unreadable("not valid UTF-8")
    except _NO_VALUE as e:
        return Unreadable(f"not readable: {one_line(e)}")
