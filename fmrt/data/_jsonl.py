"""JSON lines: an object or a bare string a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from fmrt.data._columns import TEXT, Columns, kind, pick
from fmrt.data._records import BadRecord, Record
from fmrt.data._source import empty, numbered_lines, one_line

Row = tuple[int, dict[str, object]]
# Objects need not have the same keys: the columns are those that the first hundred have together.
_HEAD = 100


def read_jsonl(
    source: str, column: str | None, keep: Sequence[str]
) -> Iterator[Record | BadRecord]:
    """Return the records of ``source``; a bare string counts as an object with only the text."""
    lines = ((number, line) for number, line in numbered_lines(source) if line.strip())
    rows = (_parse(number, line, column or TEXT) for number, line in lines)
    head = list(islice(rows, _HEAD))
    if not head:
        raise empty(source)
    found = _columns(head)
    # When every line is bad, each says why, which tells more than a missing column would.
    columns = pick(source, found, column, keep) if found else Columns(column or TEXT, tuple(keep))
    return (_record(row, columns) for row in chain(head, rows))


def _record(row: Row | BadRecord, columns: Columns) -> Record | BadRecord:
    return row if isinstance(row, BadRecord) else columns.record(*row)


def _parse(number: int, line: bytes, bare: str) -> Row | BadRecord:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return BadRecord(number, "not valid UTF-8")
    except json.JSONDecodeError as e:
        return BadRecord(number, f"not valid JSON: {e.msg} at character {e.pos + 1}")
    except (ValueError, RecursionError) as e:  # an integer of thousands of digits; deep nesting
        return BadRecord(number, f"not valid JSON: {one_line(e)}")
    if isinstance(value, str):
        value = {bare: value}
    if not isinstance(value, dict):
        return BadRecord(number, f"the line is {kind(value)}, neither an object nor a string")
    return number, value


def _columns(head: Iterable[Row | BadRecord]) -> dict[str, bool]:
    kinds: dict[str, set[type]] = {}
    for row in head:
        if not isinstance(row, BadRecord):
            for name, value in row[1].items():
                kinds.setdefault(name, set()).add(type(value))
    return {name: types - {type(None)} == {str} for name, types in kinds.items()}
