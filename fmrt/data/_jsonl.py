"""JSON lines: one object or bare string per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from fmrt.data._columns import TEXT, Columns, Wanted, kind, pick
from fmrt.data._json_values import MOST_CHARACTERS, values
from fmrt.data._records import BadRecord, Record, cell_bytes
from fmrt.data._source import LongLine, empty, line_problem, numbered_lines
from fmrt.system.limits import SMALL_LINE, Limits, structure_problem
from fmrt.words import one_line

Row = tuple[int, dict[str, object]]
# Objects need not have the same keys: the columns are those that the first hundred have together.
_HEAD = 100
# Objects in objects that are looked into.
_DEEPEST = 8


def read_jsonl(source: str, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Return the records of ``source``; a bare string counts as an object with only the text.

    A file that is one array, or objects over several lines each, is read as such, and that noted.
    """
    rows = _rows(source, wanted)
    head = _first(rows, wanted.limits)
    if not head:
        raise empty(source)
    found = _columns(head)
    # When every line is bad, each says why, which tells more than a missing column would.
    columns = Columns(wanted.column or TEXT, wanted.keep)
    if found:
        columns = pick(source, found, wanted, _inner(head))
    return (
        row if isinstance(row, BadRecord) else columns.record(*row)
        for row in chain(_taken(head), rows)
    )


def _first(rows: Iterator[Row | BadRecord], limits: Limits) -> list[Row | BadRecord]:
    """The rows that say which columns there are; fewer where they take much memory."""
    head: list[Row | BadRecord] = []
    left = limits.item_bytes // 8
    for row in islice(rows, _HEAD):
        head.append(row)
        if not isinstance(row, BadRecord):
            left -= cell_bytes(row[1])
        if left < 0:
            break
    return head


def _taken(rows: list[Row | BadRecord]) -> Iterator[Row | BadRecord]:
    """The rows one after the other; none is held longer."""
    rows.reverse()
    while rows:
        yield rows.pop()


def _rows(source: str, wanted: Wanted) -> Iterator[Row | BadRecord]:
    bare = wanted.column or TEXT
    numbered = numbered_lines(source, wanted.choices, wanted.limits)
    lines = ((number, line) for number, line in numbered if line.strip())
    head = list(islice(lines, 2))
    if _spans_lines(head, wanted.limits):
        wanted.choices.append("it is one JSON array, or values over several lines")
        blanks = [(number, b"\n") for number in range(1, head[0][0])]
        between = [(0, b"\n") for _ in range(head[0][0] + 1, head[-1][0])]
        again = chain(blanks, head[:1], between, head[1:], numbered)
        return (
            _row(number, value, bare, "value")
            for number, value in values(source, again, wanted.limits)
        )
    return (_parse(number, line, bare, wanted.limits) for number, line in chain(head, lines))


def _spans_lines(head: Sequence[tuple[int, bytes]], limits: Limits) -> bool:
    """Whether the first line is the start of an array or of an object, or a whole array alone."""
    start = head[0][1].strip() if head else b""
    if start == b"{":
        return True
    if not start.startswith(b"["):
        return False
    if structure_problem(start, limits):
        return len(head) == 1
    try:
        json.loads(start)
    except (ValueError, RecursionError):
        return len(start) < MOST_CHARACTERS
    return len(head) == 1


def _parse(number: int, line: bytes, bare: str, limits: Limits) -> Row | BadRecord:
    if (len(line) >= SMALL_LINE or type(line) is LongLine) and (
        problem := line_problem(line, limits)
    ):
        return BadRecord(number, problem)
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return BadRecord(number, "not valid UTF-8")
    except json.JSONDecodeError as e:
        if line[e.pos :].strip() == b",":
            return BadRecord(number, "not valid JSON: a comma too many at its end")
        return BadRecord(number, f"not valid JSON: {e.msg} at character {e.pos + 1}")
    except (ValueError, RecursionError) as e:  # an integer of thousands of digits; deep nesting
        return BadRecord(number, f"not valid JSON: {one_line(e)}")
    return (number, value) if isinstance(value, dict) else _row(number, value, bare, "line")


def _row(number: int, value: object, bare: str, what: str) -> Row | BadRecord:
    if isinstance(value, str):
        value = {bare: value}
    if not isinstance(value, dict):
        return BadRecord(number, f"the {what} is {kind(value)}, neither an object nor a string")
    return number, value


def _inner(head: Iterable[Row | BadRecord]) -> list[str]:
    """Names of what is inside of objects, in the order of their appearance."""
    found: dict[str, None] = {}
    for row in head:
        if not isinstance(row, BadRecord):
            found.update(dict.fromkeys(_names(row[1], "", _DEEPEST)))
    return list(found)


def _names(value: dict[str, object], before: str, deepest: int) -> Iterator[str]:
    for name, inner in value.items():
        if before:
            yield before + name
        if isinstance(inner, dict) and deepest:
            yield from _names(inner, f"{before}{name}.", deepest - 1)


def _columns(head: Iterable[Row | BadRecord]) -> dict[str, bool]:
    kinds: dict[str, set[type]] = {}
    for row in head:
        if not isinstance(row, BadRecord):
            for name, value in row[1].items():
                kinds.setdefault(name, set()).add(type(value))
    return {name: types - {type(None)} == {str} for name, types in kinds.items()}
